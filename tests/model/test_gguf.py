"""GGUF files: read by the gguf package and by transformers' own reader; llama.cpp's is in test_llamacpp.py."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import attention, gguf_vocab, hf_folder
from midillm_jax.model.gguf import Dtype, write_gguf
from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer
from tests.model.test_hf import TEXT_ROWS, config, our_logits, tokenizer, weights  # noqa: F401 (fixtures)

# Widths are multiples of q8_0's block.
WIDTHS = {"d_model": 64, "d_ff": 96, "head_dim": 16, "num_heads": 6, "num_kv_heads": 2}


@pytest.fixture
def wide(config: ModelConfig) -> ModelConfig:  # noqa: F811
    return dataclasses.replace(config, **WIDTHS)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fields, and tensors in float32."""
    reader = gguf.GGUFReader(folder / hf_folder.GGUF_FILE)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        tensors[tensor.name] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    return fields, tensors


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "dtype", "tolerance"), [(True, "float32", 2e-5), (False, "float16", 1e-2)])
def test_transformers_reads_the_same_network(
    wide: ModelConfig,
    tokenizer: Tokenizer,  # noqa: F811
    tmp_path: Path,
    tied: bool,
    dtype: Dtype,
    tolerance: float,
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    # Of rope_freqs.weight and key_length transformers takes no notice.
    model = dataclasses.replace(wide, d_model=96, tie_embeddings=tied, rope_scaling=None)
    params = weights(model)
    folder = write_gguf(tmp_path / "out", model, params, tokenizer, dtype=dtype)
    (folder / "config.json").unlink()  # all is in the file
    network = transformers.LlamaForCausalLM.from_pretrained(folder, gguf_file=hf_folder.GGUF_FILE, dtype=torch.float32)
    ids = np.random.default_rng(0).integers(0, model.vocab_size, (2, 40))
    with torch.no_grad():
        theirs = network(torch.from_numpy(ids)).logits.numpy()
    ours = our_logits(model, params, ids)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() <= tolerance * np.abs(ours).max()
    assert np.abs(ours).max() > 1


def test_q8_0_is_off_by_half_a_step_at_most(wide: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    params = weights(wide)
    _, exact = read(write_gguf(tmp_path / "float32", wide, params, tokenizer, dtype="float32"))
    _, found = read(write_gguf(tmp_path / "q8_0", wide, params, tokenizer, dtype="q8_0"))
    assert found.keys() == exact.keys()
    for name, tensor in exact.items():
        if tensor.ndim == 1:
            np.testing.assert_array_equal(found[name], tensor)
            continue
        blocks = tensor.reshape(-1, 32)
        step = np.abs(blocks).max(1, keepdims=True) / 127
        error = np.abs(found[name].reshape(-1, 32) - blocks)
        # The step itself is rounded to float16.
        assert (error <= step / 2 + 127 * step * 2.0**-11).all()
        assert error.max() > 0
    sizes = {dtype: (tmp_path / dtype / hf_folder.GGUF_FILE).stat().st_size for dtype in ("float32", "q8_0")}
    matrices = sum(tensor.size for tensor in exact.values() if tensor.ndim > 1)
    assert abs(sizes["float32"] - sizes["q8_0"] - matrices * (4 - 34 / 32)) < 4096


def test_rotary_factors_are_those_of_llama_3(wide: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    fields, tensors = read(write_gguf(tmp_path / "out", wide, weights(wide), tokenizer))
    plain = wide.rope_theta ** (-np.arange(0, wide.head_dim, 2) / wide.head_dim)
    scaled = attention.frequencies(wide.head_dim, wide.rope_theta, wide.rope_scaling)
    np.testing.assert_allclose(plain / tensors["rope_freqs.weight"], scaled, rtol=1e-6)
    assert tensors["rope_freqs.weight"].min() == 1
    assert tensors["rope_freqs.weight"].max() == 8
    assert fields["llama.rope.freq_base"] == pytest.approx(wide.rope_theta)


def test_fields_are_those_of_the_model(wide: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    folder = write_gguf(tmp_path / "out", wide, weights(wide), tokenizer)
    fields, tensors = read(folder)
    assert fields["general.architecture"] == "llama"
    expected = {
        "context_length": wide.context_length,
        "embedding_length": 64,
        "block_count": wide.num_layers,
        "feed_forward_length": 96,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "rope.dimension_count": 16,
        "vocab_size": TEXT_ROWS + 55_030,
    }
    assert {name: fields[f"llama.{name}"] for name in expected} == expected
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(wide.rms_norm_eps)
    assert tensors["token_embd.weight"].shape == (TEXT_ROWS + 55_030, 64)
    own = json.loads((folder / "midillm.json").read_text())
    assert own["text_vocab_size"] == TEXT_ROWS
    assert load_tokenizer(folder).fingerprint == tokenizer.fingerprint


def test_every_music_row_has_its_name(wide: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    fields, _ = read(write_gguf(tmp_path / "out", wide, weights(wide), tokenizer))
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == len(fields["tokenizer.ggml.scores"]) == TEXT_ROWS + vocab.VOCAB_SIZE
    assert len(set(tokens)) == len(tokens)
    control = vocab.CONTROL_OFFSET
    named = {
        0: "onset:0",
        9_999: "onset:9999",
        10_000: "duration:0",
        10_999: "duration:999",
        11_000: "note:0:0",
        11_000 + 128 * 128 + 38: "note:128:38",
        vocab.REST: "rest",
        control: "control-onset:0",
        control + 11_000 + 128 * 25 + 64: "control-note:25:64",
        vocab.SEPARATOR: "separator",
        vocab.AUTOREGRESS: "autoregress",
        vocab.ANTICIPATE: "anticipate",
        55_029: "reserved:1",
    }
    assert {amt_id: tokens[TEXT_ROWS + amt_id] for amt_id in named} == {k: f"<|{v}|>" for k, v in named.items()}
    assert set(types[TEXT_ROWS:]) == {gguf_vocab.CONTROL}, "text must not become music"
    assert fields["tokenizer.ggml.bos_token_id"] == tokenizer.bos_id
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_id
    assert fields["tokenizer.ggml.eot_token_id"] == TEXT_ROWS + vocab.SEPARATOR


def byte_level(folder: Path, pre_tokenizer: tokenizers.pre_tokenizers.PreTokenizer) -> Tokenizer:
    """A tokenizer.json of GPT-2's kind, with two specials, an added word and a hole."""
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={letter: index for index, letter in enumerate("abcd")}
            | {"ab": 4, "abc": 5, "<|begin_of_text|>": 7, "<|end_of_text|>": 8, "brass": 9},
            merges=[("a", "b"), ("ab", "c")],
        )
    )
    made.pre_tokenizer = pre_tokenizer
    made.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    made.add_tokens(["brass"])
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


SPLITS = {
    "gpt-2": tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    "llama-bpe": tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(
                tokenizers.Regex(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
                ),
                behavior="isolated",
            ),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_byte_level_vocabulary_keeps_ids_merges_and_kinds(tmp_path: Path, name: str) -> None:
    made = byte_level(tmp_path / "tokenizer", SPLITS[name])
    found = gguf_vocab.vocabulary(made)
    assert (found.model, found.pre) == ("gpt2", name)
    assert found.merges == ["a b", "ab c"]
    assert len(found.tokens) == made.vocab_size + vocab.VOCAB_SIZE
    kinds = dict(zip(found.tokens, found.token_type, strict=True))
    assert [found.tokens[index] for index in (0, 4, 5)] == ["a", "ab", "abc"]
    assert kinds["abc"] == gguf_vocab.NORMAL
    assert kinds["brass"] == gguf_vocab.USER_DEFINED
    assert kinds["<|begin_of_text|>"] == kinds["<|end_of_text|>"] == gguf_vocab.CONTROL
    assert found.tokens[6] == "[unused 6]"
    assert kinds["[unused 6]"] == gguf_vocab.UNUSED


def test_what_llama_cpp_cannot_have_is_refused(wide: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    odd = byte_level(tmp_path / "odd", tokenizers.pre_tokenizers.Whitespace())
    with pytest.raises(UserError, match=r"odd/tokenizer\.json: this tokenizer splits text"):
        gguf_vocab.vocabulary(odd)
    words = [f"a {thing} plays {number}" for thing in ("drum", "horn", "lute") for number in range(50)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(tmp_path / "unigram"),
        vocab_size=33,
        model_type="unigram",
        minloglevel=2,
    )
    with pytest.raises(UserError, match=r"unigram\.model: llama\.cpp reads sentencepiece models of type bpe"):
        gguf_vocab.vocabulary(load_tokenizer(tmp_path / "unigram.model"))
    narrow = dataclasses.replace(wide, d_model=48)
    with pytest.raises(UserError, match=r"d_model of this model is 48 wide, q8_0 needs a multiple of 32; use float16"):
        write_gguf(tmp_path / "out", narrow, weights(narrow), tokenizer, dtype="q8_0")
    params = weights(wide)
    params["blocks"]["feed_forward"]["up"] = params["blocks"]["feed_forward"]["up"] * 1e6
    with pytest.raises(UserError, match=r"mlp\.up_proj\.weight: holds values that are not finite as float16"):
        write_gguf(tmp_path / "out", wide, params, tokenizer)
    assert not (tmp_path / "out").exists()
