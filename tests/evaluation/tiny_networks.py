"""Networks of a few numbers in the files that real ones come in. They hear next to nothing: for wiring alone."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_onnx(
    path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], outputs: int, **weights: np.ndarray
) -> Path:
    """Nodes from ``x`` to ``y0``, ``y1`` and so on."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None) for number in range(outputs)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def samples_to_vectors(path: Path, frames: int, dims: int, seed: int = 0) -> np.ndarray:
    """[B, frames] times a matrix; gives the matrix."""
    matrix = np.random.default_rng(seed).normal(size=(frames, dims)).astype(np.float32) / frames**0.5
    write_onnx(path, [helper.make_node("MatMul", ["x", "w"], ["y0"])], ["b", frames], 1, w=matrix)
    return matrix


def tagger(path: Path, tags: list[str]) -> Path:
    """musicnn's form: patches [B, 187, 96] to [B, 96] and, of as many bands as there are tags, shares below 1."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["y0"], axes=[1], keepdims=0),
        helper.make_node("Slice", ["y0", "from", "to", "axis"], ["some"]),
        helper.make_node("Sigmoid", ["some"], ["y1"]),
    ]
    weights = {"from": np.array([0]), "to": np.array([len(tags)]), "axis": np.array([1])}
    write_onnx(path, nodes, ["b", 187, 96], 2, **weights)
    path.with_suffix(".json").write_text(json.dumps({"tags": tags}))
    return path


def transcriber(path: Path) -> Path:
    """basic-pitch's form: [B, 43844, 1] to [B, 172, n] for n of 88, 88 and 264; each frame holds its samples' energy.

    43,844 is no multiple of 172, so that frames are of 254 samples and the last 156 samples go unheard.
    """
    nodes = [
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["cut"]),
        helper.make_node("Reshape", ["cut", "frames"], ["framed"]),
        helper.make_node("Mul", ["framed", "framed"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["energy"], axes=[2], keepdims=1),
        *(helper.make_node("Tile", ["energy", f"times{n}"], [f"y{n}"]) for n in range(3)),
    ]
    weights = {"from": np.array([0]), "to": np.array([172 * 254]), "axis": np.array([1])}
    weights |= {"frames": np.array([-1, 172, 254])}
    weights |= {f"times{n}": np.array([1, 1, bins]) for n, bins in enumerate((88, 88, 264))}
    return write_onnx(path, nodes, ["b", 43_844, 1], 3, **weights)


def clap(folder: Path) -> Path:
    """A ClapModel with random weights, its extractor and a tokenizer of bytes, as from_pretrained finds them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
        "projection_dim": 12,
    }
    audio = {
        "spec_size": 128,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 4,
        "hidden_size": 16,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "projection_dim": 12,
    }
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(folder)
    extractor = ClapFeatureExtractor(feature_size=16, truncation="rand_trunc", padding="repeatpad")
    extractor.save_pretrained(folder)
    return folder
