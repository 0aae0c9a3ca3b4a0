import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax import config
from midillm_jax.errors import UserError
from midillm_jax.model.llama import Definition, Execution, parameter_count


def test_json_gives_back_every_field() -> None:
    run = config.load("stage2.py")
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


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "configs").glob("[!_]*.py")), ids=lambda p: p.name
)
def test_every_config_loads_and_says_how_to_run_it(path: Path) -> None:
    assert isinstance(config.load(path.name), config.Config)
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
