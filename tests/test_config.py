import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from midillm_jax import config, config_check
from midillm_jax.errors import UserError
from midillm_jax.model.llama import Definition, Execution, parameter_count
from midillm_jax.music import anticipation


@pytest.mark.parametrize("name", ["stage2.py", "finetune.py"])
def test_json_gives_back_every_field(name: str) -> None:
    run = config.load(name)
    assert config.from_json(config.to_json(run), "memory") == run


@pytest.mark.parametrize("name", ["stage1.py", "stage2.py"])
def test_the_recipes_have_the_published_shape(name: str) -> None:
    run = config.load(name)
    assert run.model.vocab_size == 128_256 + 55_030
    # Llama-3.2-1B is 1,235,814,400 parameters (its model card); each of 55,030 tied rows adds 2,048.
    assert parameter_count(run.model) == 1_235_814_400 + 55_030 * 2_048
    shapes = jax.tree.leaves(Definition(run.model, Execution("float32", "bfloat16", "full")).abstract())
    padding = (run.model.padded_vocab_size - run.model.vocab_size) * run.model.d_model
    assert sum(int(np.prod(leaf.shape)) for leaf in shapes) - padding == parameter_count(run.model)


def test_the_recipes_anticipate_in_the_papers_proportions() -> None:
    """Infilling is for stage 2: a tenth plain, a tenth spans, four tenths each of notes and of instruments."""
    assert config.load("stage1.py").data.anticipation == config.AnticipationConfig()
    shares = config.load("stage2.py").data.anticipation
    assert (shares.spans, shares.random, shares.instruments) == (0.1, 0.4, 0.4)
    assert (shares.span_rate, shares.span_seconds) == (anticipation.SPANS_PER_SECOND, anticipation.SPAN_TICKS / 100)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "configs").glob("[!_]*.py")), ids=lambda p: p.name
)
def test_every_config_loads_and_says_how_to_run_it(path: Path) -> None:
    config_check.check(config.load(path.name))
    assert f"--config {path.name}" in path.read_text().split('"""')[1]


def test_the_current_folder_comes_before_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = config.find("stage1.py")
    Path("stage1.py").write_text(shipped.read_text().replace('name="stage1"', 'name="mine"'))
    assert config.load("stage1.py").name == "mine"


def test_a_missing_config_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        config.load("stage9.py")
    assert str(tmp_path) in str(error.value)
    assert str(config.find("stage1.py").parent) in str(error.value)


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        ("    streams=64,", "    steams=64,", ["DataConfig", "'steams'", "did you mean 'streams'?"]),
        ("def get_config()", "def config()", ["no get_config()"]),
        ("        steps=11_826,\n", "", ["Config lacks 'steps'"]),
        ("row_length=2048,\n            music_rows=64,", "", ["DataConfig lacks 'row_length', 'music_rows'"]),
    ],
)
def test_a_wrong_config_file_says_what_is_wrong(tmp_path: Path, found: str, written: str, words: list[str]) -> None:
    text = config.find("stage1.py").read_text()
    assert found in text
    path = tmp_path / "mine.py"
    path.write_text(text.replace(found, written))
    with pytest.raises(UserError) as error:
        config.load(str(path))
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_type_error_of_the_persons_own_code_is_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    def __init__(self, size): ...\n\ndef get_config():\n    return Mine()\n")
    with pytest.raises(TypeError, match="missing 1 required"):
        config.load(str(path))


def changed(value: Any, path: str, to: object) -> Any:
    """A copy of a dataclass with the field at a dotted path replaced."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(value, **{name: changed(getattr(value, name), rest, to) if rest else to})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("steps", 0, "1 or more"),
        ("log_every_steps", 0, "1 or more"),
        ("eval.every_steps", 0, "1 or more"),
        ("eval.batches", 0, "1 or more"),
        ("checkpoint.every_steps", 0, "1 or more"),
        ("checkpoint.keep", 0, "1 or more"),
        ("optimizer.accumulation_steps", 0, "1 or more"),
        ("optimizer.warmup_steps", -1, "0 or more"),
        ("optimizer.learning_rate", float("nan"), "0 or more"),
        ("optimizer.clip_norm", 0.0, "above 0"),
        ("optimizer.beta2", 1.0, "below 1"),
        ("data.row_length", 0, "1 or more"),
        ("data.row_length", 131_073, "at most model.context_length, which is 131072"),
        ("data.music_rows", -1, "0 or more"),
        ("data.workers", -1, "0 or more"),
        ("data.tempo_stretch", -0.1, "0 to 1"),
        ("data.tempo_stretch", 1.1, "0 to 1"),
        ("model.num_heads", 12, "a multiple of model.num_kv_heads, which is 8"),
        ("model.num_kv_heads", 0, "1 or more"),
        ("model.head_dim", 63, "an even number"),
        ("model.head_dim", 0, "an even number"),
        ("model.music_vocab_size", 0, "55030"),
        ("model.rope_scaling", config.RopeScaling(0.0, 1.0, 4.0, 8192), "numbers above 0"),
        ("samples.every_steps", -1, "0 or more"),
        ("samples.prompts", (), "a prompt or more"),
        ("samples.max_seconds", 5.0, "above 5"),
        ("samples.max_seconds", 101.0, "at most 100"),
        ("samples.max_notes", 15, "16 or more"),
        ("samples.temperature", -0.1, "0 or more"),
        ("samples.temperature", float("inf"), "0, or 0.01 to 100"),
        ("samples.top_p", 0.0, "0.000001 to 1"),
        ("samples.prompts", ("", None), "of type str"),
        ("seed", -1, "0 to 2**32 - 1"),
        ("steps", 10.0, "of type int"),
        ("steps", True, "of type int"),
        ("name", None, "of type str"),
        ("loss.kind", "half", "'full' or 'slot'"),
        ("data.music", [], "of type tuple"),
        ("data.music", (config.Source(3),), "of type str"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_no_run_can_have_is_refused(field: str, value: object, expected: str) -> None:
    run = changed(config.load("stage1.py"), field, value)
    with pytest.raises(UserError) as error:
        config_check.check(run)
    assert str(error.value).startswith(field)
    shown = "3" if field == "data.music" and value else "None" if value == ("", None) else repr(value)
    for word in (shown, expected):
        assert word in str(error.value)


def test_a_prompt_is_a_target_only_of_the_full_loss() -> None:
    full = changed(config.load("stage2.py"), "data.prompt_weight", 1.0)
    config_check.check(full)
    with pytest.raises(UserError, match=r"data\.prompt_weight is 1\.0; expected 0, or above 0 with loss\.kind"):
        config_check.check(changed(full, "loss.kind", "slot"))


def test_samples_of_a_run_without_music_are_refused() -> None:
    run = changed(changed(config.load("stage1.py"), "data.music_rows", 0), "samples.every_steps", 10)
    with pytest.raises(UserError, match=r"samples.every_steps is 10; expected 0, as data.music_rows is 0"):
        config_check.check(run)


@pytest.mark.parametrize(
    ("changes", "field", "value", "expected"),
    [
        ({"lora_rank": -1}, "finetune.lora_rank", -1, "0 or more"),
        ({"lora_rank": 0, "music_rows": False}, "finetune.lora_rank", 0, "1 or more, as no music rows train"),
        ({"lora_alpha": 0.0}, "finetune.lora_alpha", 0.0, "a number above 0"),
        ({"lora_projections": ()}, "finetune.lora_projections", (), "one or more, each once"),
        ({"lora_projections": ("up", "up")}, "finetune.lora_projections", ("up", "up"), "one or more, each once"),
        ({"lora_projections": ("ups",)}, "finetune.lora_projections.0", "ups", "'query' or 'key'"),
        ({"init_from": ""}, "init_from", "", "the folder of the model to finetune"),
        ({"optimizer.text_rows_learning_rate_share": 0.0}, "optimizer.text_rows_learning_rate_share", 0.0, "1 with"),
        (
            {"model.music_vocab_size": 0, "data.music_rows": 0},
            "model.music_vocab_size",
            0,
            "rows that can train",
        ),
    ],
)
def test_a_finetuning_that_no_run_can_have_is_refused(
    changes: dict[str, Any], field: str, value: object, expected: str
) -> None:
    run = config.load("finetune.py")
    for path, to in changes.items():
        run = changed(run, f"finetune.{path}" if path in FINETUNE else path, to)
    with pytest.raises(UserError) as error:
        config_check.check(run)
    assert str(error.value).startswith(f"{field} is {value!r}; expected {expected}")


FINETUNE = {field.name for field in dataclasses.fields(config.FinetuneConfig)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 1),
        ("optimizer.warmup_steps", 0),
        ("optimizer.clip_norm", float("inf")),
        ("optimizer.learning_rate", 1),
        ("model.rope_scaling", None),
        ("data.prefetch", 0),
        ("data.row_length", 131_072),
    ],
)
def test_values_at_the_edge_are_allowed(field: str, value: object) -> None:
    config_check.check(changed(config.load("stage1.py"), field, value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["not JSON"]),
        ('{"nme": "x"}', ["unknown field 'nme'", "did you mean 'name'?"]),
        ('{"name": "x"}', ["'steps' of Config is missing"]),
    ],
)
def test_a_wrong_saved_config_names_file_and_field(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        config.from_json(text, "runs/x/config.json")
    for word in ["runs/x/config.json", *words]:
        assert word in str(error.value)


def test_the_table_is_padded_to_the_multiple(tiny_model: config.ModelConfig) -> None:
    model = dataclasses.replace(tiny_model, text_vocab_size=128_256, vocab_multiple=512)
    assert model.padded_vocab_size == 183_296
    assert dataclasses.replace(model, vocab_multiple=1).padded_vocab_size == 183_286
