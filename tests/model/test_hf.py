"""Hugging Face folders: against transformers' own Llama, there and back, and what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import hf, hf_config, hf_names, hf_write
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece

TEXT_ROWS = 300


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    words = [f"a {colour} {thing} plays" for colour in ("warm", "cold", "bright") for thing in ("drum", "horn", "lute")]
    return train_sentencepiece(words, tmp_path_factory.mktemp("tokenizer") / "words.model", TEXT_ROWS)


@pytest.fixture
def config(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, text_vocab_size=TEXT_ROWS)


def weights(config: ModelConfig, seed: int = 0) -> Params:
    """Weights of which every one matters: large enough for attention to be sharp, norms away from 1."""
    params = Definition(config, INFERENCE).init(jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def stir(path: Any, leaf: jax.Array) -> np.ndarray:
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return 1 + 0.3 * noise if "norm" in jax.tree_util.keystr(path) else 0.15 * noise

    return jax.tree_util.tree_map_with_path(stir, params)


def our_logits(config: ModelConfig, params: Params, tokens: np.ndarray) -> np.ndarray:
    """[B, T, vocab_size] in float32."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    params = jax.tree.map(jnp.asarray, params)
    with jax.default_matmul_precision("highest"):
        hidden = Definition(config, INFERENCE).forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        return np.asarray(hidden @ head_table(params).T)[..., : config.vocab_size]


def without_padding_rows(config: ModelConfig, params: Params) -> dict[hf_names.TreePath, np.ndarray]:
    """Path -> leaf, tables cut to their real rows."""
    tables = {("embedding",), ("head",)}
    return {
        path: np.asarray(leaf)[: config.vocab_size] if path in tables else np.asarray(leaf)
        for path, leaf in hf_names.flat(params).items()
    }


def same(config: ModelConfig, left: Params, right: Params) -> bool:
    """Equal in every bit and in dtype, padding rows apart."""
    a, b = without_padding_rows(config, left), without_padding_rows(config, right)
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


VARIANTS = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "unscaled": {"rope_scaling": None},
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, **VARIANTS[request.param])


def test_transformers_gives_the_same_logits(variant: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    params = weights(variant)
    hf_write.write_hf(tmp_path / "out", variant, params, tokenizer)
    model, report = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = np.random.default_rng(1).integers(0, variant.vocab_size, (2, 200), dtype=np.int32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens).long()).logits.numpy()
    ours = our_logits(variant, params, tokens)
    assert ours.std() > 0.5, "logits too flat to tell two models apart"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_transformers_samples_with_the_exported_defaults(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    params = weights(config)
    hf_write.write_hf(tmp_path / "out", config, params, tokenizer, generation=hf_write.Generation(max_new_tokens=9))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    defaults = model.generation_config
    assert (defaults.do_sample, defaults.temperature, defaults.top_p, defaults.top_k) == (True, 1.0, 0.98, 0)
    separator = TEXT_ROWS + vocab.SEPARATOR
    assert defaults.eos_token_id == [tokenizer.eos_id, separator]
    prompt = torch.tensor([[tokenizer.bos_id, TEXT_ROWS + vocab.AUTOREGRESS]])
    assert model.generate(prompt).shape[1] <= 2 + 9
    # With a head that points at SEPARATOR from everywhere, generation ends there.
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.model.norm.register_forward_hook(lambda *_: model.model.embed_tokens.weight[separator][None, None] * 50)
    assert model.generate(prompt)[0].tolist() == [*prompt[0].tolist(), separator]


def test_reads_what_transformers_writes(config: ModelConfig, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=TEXT_ROWS,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=12,
            rms_norm_eps=2e-4,
            rope_parameters={"rope_type": "default", "rope_theta": 777.0},
            initializer_range=0.2,
        )
    )
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    found, params = hf.read_hf(tmp_path, text_vocab_size=TEXT_ROWS)
    assert found.music_vocab_size == 0
    assert not found.tie_embeddings
    tokens = np.random.default_rng(1).integers(0, TEXT_ROWS, (2, 60), dtype=np.int32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(our_logits(found, params, tokens), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_there_and_back_is_bit_equal(variant: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, dtype: Any) -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(hf.DTYPES[dtype][1]), weights(variant))
    hf_write.write_hf(tmp_path / "out", variant, params, tokenizer, dtype=dtype)
    found, read = hf.read_hf(tmp_path / "out")
    assert found == variant
    assert same(variant, params, read)
    for table in [name for name in ("embedding", "head") if name in read]:
        assert read[table].shape[0] == variant.padded_vocab_size > variant.vocab_size
        assert not read[table][variant.vocab_size :].any()
    # And the files are those that any reader of the format takes.
    stored = safetensors.numpy.load_file(tmp_path / "out" / hf.WEIGHTS_FILE)
    assert stored["model.embed_tokens.weight"].shape == (variant.vocab_size, variant.d_model)
    assert ("lm_head.weight" in stored) != variant.tie_embeddings


def test_dtype_is_chosen_when_writing_and_when_reading(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    params = weights(config)
    hf_write.write_hf(tmp_path / "out", config, params, tokenizer, dtype="bfloat16")
    _, read = hf.read_hf(tmp_path / "out", dtype="float32")
    rounded = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    assert same(config, rounded, read)


def test_jax_arrays_are_written_as_numpy_ones_are(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    params = weights(config)
    hf_write.write_hf(tmp_path / "numpy", config, params, tokenizer)
    hf_write.write_hf(tmp_path / "jax", config, jax.tree.map(jnp.asarray, params), tokenizer)
    names = sorted(file.name for file in (tmp_path / "numpy").iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "midillm.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    assert all((tmp_path / "numpy" / name).read_bytes() == (tmp_path / "jax" / name).read_bytes() for name in names)


def test_both_rope_forms_are_read_alone_and_must_agree(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    path = tmp_path / "out" / "config.json"
    both = path.read_text()
    edit_json(path, lambda fields: fields.pop("rope_parameters"))
    assert hf.read_hf(tmp_path / "out")[0] == config
    path.write_text(both)
    edit_json(path, lambda fields: (fields.pop("rope_scaling"), fields.pop("rope_theta")))
    assert hf.read_hf(tmp_path / "out")[0] == config
    path.write_text(both)
    edit_json(path, lambda fields: fields["rope_scaling"].update(factor=2.0))
    with pytest.raises(UserError, match="rope_scaling and rope_parameters differ"):
        hf.read_hf(tmp_path / "out")


def test_text_rows_are_told_from_music_rows(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    out = hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    (out / "midillm.json").unlink()  # as in a folder that others wrote
    assert hf.read_hf(out)[0] == config
    (out / "tokenizer.model").unlink()
    with pytest.raises(UserError, match="which of the 55330 rows are text"):
        hf.read_hf(out)
    assert hf.read_hf(out, text_vocab_size=TEXT_ROWS)[0] == config
    assert hf.read_hf(out, text_vocab_size=config.vocab_size)[0].music_vocab_size == 0
    with pytest.raises(UserError, match="vocab_size 55330, expected the 299 ids"):
        hf.read_hf(out, text_vocab_size=TEXT_ROWS - 1)


def test_a_text_model_goes_there_and_back(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = dataclasses.replace(config, music_vocab_size=0, vocab_multiple=64)
    params = weights(config)
    out = hf_write.write_hf(tmp_path / "out", config, params, tokenizer)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [tokenizer.eos_id]
    found, read = hf.read_hf(out, vocab_multiple=64)
    assert found == config
    assert same(config, params, read)


@pytest.mark.parametrize("equal", [True, False])
def test_the_tensors_say_whether_the_head_is_tied(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, equal: bool
) -> None:
    out = hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    tensors = safetensors.numpy.load_file(out / hf.WEIGHTS_FILE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    if not equal:
        tensors["lm_head.weight"][-1, -1] += 1
    safetensors.numpy.save_file(tensors, out / hf.WEIGHTS_FILE)
    found, read = hf.read_hf(out)
    assert found.tie_embeddings == equal
    assert ("head" in read) == (not equal)


@pytest.fixture
def folder(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return hf_write.write_hf(tmp_path / "model", config, weights(config), tokenizer)


def shard(folder: Path, parts: dict[str, list[str]], tensors: dict[str, np.ndarray]) -> None:
    """Cuts a folder's weights into shards: file name -> tensor names."""
    (folder / hf.WEIGHTS_FILE).unlink()
    for file, names in parts.items():
        safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    (folder / hf.INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_hold_what_one_file_holds(config: ModelConfig, folder: Path) -> None:
    whole = hf.read_hf(folder)[1]
    tensors = safetensors.numpy.load_file(folder / hf.WEIGHTS_FILE)
    names = list(tensors)
    shard(folder, {"a.safetensors": names[:5], "b.safetensors": names[5:]}, tensors)
    assert same(config, whole, hf.read_hf(folder)[1])


def test_large_weights_are_written_as_shards(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    params = weights(config)
    hf_write.write_hf(tmp_path / "one", config, params, tokenizer)
    table = config.vocab_size * config.d_model * 4
    hf_write.write_hf(tmp_path / "many", config, params, tokenizer, shard_bytes=table + 1000)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 1
    assert [file.name for file in files] == [
        f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
    ]
    # 8 bytes of length and the header come on top.
    assert all(file.stat().st_size < table + 20_000 for file in files)
    assert not (tmp_path / "many" / "model.safetensors").exists()
    jax.tree.map(np.testing.assert_array_equal, hf.read_hf(tmp_path / "many")[1], hf.read_hf(tmp_path / "one")[1])
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    one, many = (
        transformers.LlamaForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).state_dict()
        for name in ("one", "many")
    )
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_shards_that_disagree_are_named(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / hf.WEIGHTS_FILE)
    first, *rest = tensors
    shard(folder, {"a.safetensors": [first], "b.safetensors": rest}, tensors)
    index = (folder / hf.INDEX_FILE).read_text()

    def say(**places: str) -> None:
        (folder / hf.INDEX_FILE).write_text(index)
        edit_json(folder / hf.INDEX_FILE, lambda fields: fields["weight_map"].update(places))

    say(**{rest[-1]: "a.safetensors"})
    with pytest.raises(UserError, match=rf"b\.safetensors: holds tensor {rest[-1]}, which .* is in another shard"):
        hf.read_hf(folder)
    say(**{"model.extra": "a.safetensors"})
    with pytest.raises(UserError, match=r"names tensors that its shards do not hold: model\.extra"):
        hf.read_hf(folder)
    say(**{first: "c.safetensors"})
    with pytest.raises(UserError, match=r"c\.safetensors: this shard is named .* but is not there"):
        hf.read_hf(folder)
    shutil.copyfile(folder / "a.safetensors", folder / "c.safetensors")
    say(**{"model.extra": "c.safetensors"})
    with pytest.raises(UserError, match=rf"c\.safetensors: tensor {first} is in another shard of the folder too"):
        hf.read_hf(folder)


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q), rf"tensors missing: {Q}"),
        (lambda t: t.update({Q.replace("1", "3"): t[Q]}), r"unknown tensors: model\.layers\.3\.self_attn"),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": t["model.norm.weight"]}),
            r"unknown .*q_proj\.bias",
        ),
        (lambda t: t.update({Q: t[Q].T.copy()}), rf"{Q} has shape \(48, 96\), expected \(96, 48\)"),
        (lambda t: t.update({Q: t[Q].astype(np.int32)}), rf"{Q} is stored as I32"),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, change: Callable[[dict[str, np.ndarray]], Any], message: str) -> None:
    tensors = safetensors.numpy.load_file(folder / hf.WEIGHTS_FILE)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / hf.WEIGHTS_FILE)
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="qwen2"), "model_type is 'qwen2', expected 'llama'"),
        (lambda c: c.update(attention_bias=True), "attention_bias is True"),
        (lambda c: c.update(quantization_config={"bits": 4}), "unquantised"),
        (lambda c: c.pop("rms_norm_eps"), "field 'rms_norm_eps' is missing"),
        (lambda c: c["rope_parameters"].update(rope_type="yarn"), "rope_type is 'yarn'"),
    ],
)
def test_a_config_we_cannot_run_is_refused(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_json(folder / "config.json", change)
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


def test_fields_that_older_configs_leave_out(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    # Llama 1 and 2: no head_dim, no grouped heads, theta 10,000.
    config = dataclasses.replace(config, num_kv_heads=6, head_dim=8, rope_theta=10_000.0, rope_scaling=None)
    out = hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    absent = ("head_dim", "num_key_value_heads", "rope_theta", "rope_parameters", "rope_scaling", "attention_bias")
    edit_json(out / "config.json", lambda fields: [fields.pop(name) for name in absent])
    assert hf.read_hf(out)[0] == config


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    weights_file = folder / hf.WEIGHTS_FILE
    weights_file.write_bytes(weights_file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file"):
        hf.read_hf(folder)
    weights_file.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"neither model\.safetensors .*pytorch_model\.bin.*pickled"):
        hf.read_hf(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        hf.read_hf(folder)
    with pytest.raises(UserError, match=r"nowhere/config\.json: no such file; expected a Hugging Face model folder"):
        hf.read_hf(folder / "nowhere")


def test_weights_of_another_model_are_not_written(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    params = weights(config)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"feed_forward\.gate has shape \(3, 48, 80\), expected \(3, 48, 81\)"):
        hf_write.write_hf(out, dataclasses.replace(config, d_ff=81), params, tokenizer)
    with pytest.raises(UserError, match="missing: head"):
        hf_write.write_hf(out, dataclasses.replace(config, tie_embeddings=False), params, tokenizer)
    with pytest.raises(UserError, match="unknown: head"):
        hf_write.write_hf(out, config, params | {"head": params["embedding"]}, tokenizer)
    with pytest.raises(UserError, match="300 ids, the model's text vocabulary 299 rows"):
        hf_write.write_hf(out, dataclasses.replace(config, text_vocab_size=299), params, tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_is_left(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    params = weights(config)
    out = hf_write.write_hf(tmp_path / "out", config, params, tokenizer)
    before = (out / hf.WEIGHTS_FILE).read_bytes()
    broken = params | {"final_norm": np.full_like(params["final_norm"], 1e6)}
    with pytest.raises(UserError, match=r"model\.norm\.weight: holds values that are not finite as float16"):
        hf_write.write_hf(out, config, broken, tokenizer, dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / hf.WEIGHTS_FILE).read_bytes() == before
    hf_write.write_hf(out, config, params, tokenizer, dtype="bfloat16")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / hf.WEIGHTS_FILE).stat().st_size < len(before)


def test_a_folder_of_something_else_is_left_alone(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match=r"not an export of midillm_jax, which would have a midillm\.json"):
        hf_write.write_hf(tmp_path, config, weights(config), tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
    with pytest.raises(UserError, match="not an export"):
        hf_write.write_hf(tmp_path / "letters.txt", config, weights(config), tokenizer)
    assert (tmp_path / "letters.txt").read_text() == "dear"


@pytest.mark.parametrize("kind", ["a run", "a run with an export in it", "a downloaded model"])
def test_only_an_export_is_replaced(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    if kind != "a downloaded model":
        (out / "checkpoints" / "7").mkdir(parents=True)
    if kind == "a run with an export in it":
        (out / "midillm.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="holds checkpoints" if "run" in kind else "not an export"):
        hf_write.write_hf(out, config, weights(config), tokenizer)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_beside_the_export_are_the_users(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    mine = [tmp_path / f"out.{ending}" / "letters.txt" for ending in ("old", "partial")]
    for path in mine:
        path.parent.mkdir()
        path.write_text("dear")
    for _ in range(2):
        hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    assert [path.read_text() for path in mine] == ["dear", "dear"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old", "out.partial"]


def test_the_tokenizer_is_found_whatever_it_was_called(config: ModelConfig, tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["<s>", "</s>", *map(str, range(18))])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    backend.add_special_tokens(["<s>", "</s>"])
    home = tmp_path / "home"
    home.mkdir()
    backend.save(str(home / "my_tok.json"))
    (home / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    train_sentencepiece(["a warm drum plays", "a cold horn plays"], home / "letters.model", 280).files[0].rename(
        home / "letters.spm"
    )
    for name, written in (
        ("my_tok.json", {"tokenizer.json", "tokenizer_config.json"}),
        ("letters.spm", {"tokenizer.model"}),
    ):
        mine = load_tokenizer(home / name)
        shape = dataclasses.replace(config, text_vocab_size=mine.vocab_size)
        out = hf_write.write_hf(tmp_path / name / "out", shape, weights(shape), mine)
        assert {path.name for path in out.glob("tokenizer*")} == written
        assert load_tokenizer(out).fingerprint == mine.fingerprint


@pytest.mark.parametrize(
    ("stored", "computed"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")]
)
def test_a_music_model_computes_in_the_type_it_is_stored_in(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, stored: hf.Dtype, computed: str
) -> None:
    params = weights(config)
    definition, read = hf.load_music_model(hf_write.write_hf(tmp_path / "out", config, params, tokenizer, dtype=stored))
    assert (definition.config, definition.run.compute_dtype) == (config, computed)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(read)} == {computed}
    rounded = jax.tree.map(lambda leaf: leaf.astype(hf.DTYPES[stored][1]).astype(computed), params)
    assert same(config, rounded, read)


def test_a_text_model_is_no_music_model(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = dataclasses.replace(config, music_vocab_size=0)
    out = hf_write.write_hf(tmp_path / "out", config, weights(config), tokenizer)
    with pytest.raises(UserError, match="text model without music rows"):
        hf.load_music_model(out)
    with pytest.raises(UserError, match="no such file; expected a Hugging Face model folder"):
        hf.load_music_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("run", "length"),
    [({"data": {"row_length": 64}}, 64), ({"data": {"row_length": 4096}}, 256), (None, 256)],
)
def test_row_length_is_that_of_training_within_the_context(folder: Path, run: object, length: int) -> None:
    edit_json(folder / "midillm.json", lambda fields: fields.update(trained_with=run))
    assert hf_config.row_length(folder) == length


def test_row_length_without_a_word_of_the_training(folder: Path) -> None:
    edit_json(folder / "midillm.json", lambda fields: fields.update(trained_with={"data": {}}))
    with pytest.raises(UserError, match="field 'row_length' is missing"):
        hf_config.row_length(folder)
    (folder / "midillm.json").unlink()
    assert hf_config.row_length(folder) == 256


def test_memory_stays_within_the_model_and_its_largest_tensor(tmp_path: Path, config: ModelConfig) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    config = dataclasses.replace(config, music_vocab_size=0, num_layers=12, d_model=256, d_ff=1024)
    params = weights(config)
    size = sum(leaf.nbytes for leaf in hf_names.flat(params).values())
    largest = 4 * config.d_model * config.d_ff
    out = tmp_path / "out"

    class Sized:
        vocab_size, bos_id, eos_id, files = config.text_vocab_size, 1, 2, ()

    tracemalloc.start()
    try:
        hf_write.write_hf(out, config, params, Sized())  # type: ignore[arg-type]
        writing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        hf.read_hf(out)
        reading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 8 * largest
    assert writing < 2.5 * largest
    assert reading < size + 2.5 * largest
