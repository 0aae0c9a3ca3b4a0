import json
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import PartitionSpec

from midillm_jax.config import Config
from midillm_jax.model import sharding
from midillm_jax.training.compile import _named_buffers, abstract_batch, abstract_state
from midillm_jax.training.loop import open_batches
from midillm_jax.training.step import DEVICE_FIELDS, make_training, place

GIB = 1 << 30

TINY = """
import dataclasses
from midillm_jax import config
from midillm_jax.presets import DEMO

def get_config():
    run = config.load("stage1.py")
    # Text alone on the smallest table: most of what libtpu's time goes to is left out.
    return dataclasses.replace(
        run,
        model=dataclasses.replace(DEMO, num_layers=2, music_vocab_size=0),
        data=dataclasses.replace(run.data, row_length=128, text_rows=16, music_rows=0),
    )
"""


def command(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "midillm_jax.train", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def for_tpu(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    pytest.importorskip("libtpu", reason="libtpu is not installed")
    return command(*arguments, cwd=cwd)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.py").write_text(TINY)
    return "tiny.py"


def test_what_is_compiled_is_what_a_run_makes(run: Config) -> None:
    """Shapes, dtypes and placement of state and batch, on real data."""
    training = make_training(run, sharding.make_mesh(run.mesh))
    with open_batches(training, "train") as batches:
        real = place(training, next(batches))
    promised = abstract_batch(training)
    assert real.keys() == promised.keys() == DEVICE_FIELDS.keys()
    for name, field in real.items():
        assert (field.shape, field.dtype, field.sharding) == (
            promised[name].shape,
            promised[name].dtype,
            promised[name].sharding,
        ), name
    assert abstract_state(training)["params"]["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compile-only", "v9:2x2"], ["v9:2x2", "v5e", "v6e", "tpu7x"]),
        (["--compile-only", "v5e:3x3"], ["no such slice", "2x4"]),
        (["--json", "-"], ["--compile-only", "missing"]),
        (["--compile-only", "v5e:2x4", "--price-per-chip-hour", "-1"], ["-1", "0 or more"]),
    ],
)
def test_mistakes_are_told_before_anything_is_compiled(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = command("--config", "stage1.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_divide_over_the_slice_are_named(tmp_path: Path, tiny: str) -> None:
    done = for_tpu("--config", tiny, "--compile-only", "v5e:2x4", "--data.text-rows", "12", cwd=tmp_path)
    assert done.returncode == 2
    assert "data.text_rows: 12 rows do not divide" in done.stderr


def test_a_step_compiles_for_a_slice_that_is_not_here(tmp_path: Path, tiny: str) -> None:
    done = for_tpu(
        "--config", tiny, "--compile-only", "v5e:2x4", "--mesh.tensor", "2",
        "--json", "-", "--price-per-chip-hour", "2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mesh"] == {"slice": 1, "data": 1, "fsdp": 4, "tensor": 2}
    assert (found["chips"], found["rows_a_chip"], found["step_tokens"]) == (8, 2, 2048)
    assert found["fits"]
    assert found["compiled_not_run"]
    # The weights and their two moments in float32, an eighth on each chip; matrices this small fill their tiles badly.
    state = 3 * 4 * found["parameters"] / 8
    assert state < found["chip_bytes"]["arguments"] < 3 * state
    assert found["chip_bytes"]["donated"] > 0.95 * (found["chip_bytes"]["arguments"] - 20_000)
    # Weights that are split have to come together, and gradients to be added up.
    assert sum(each["count"] for each in found["collectives"].values()) > 0
    assert found["seconds"]["step"] == max(
        found["seconds"]["arithmetic"], found["seconds"]["memory"], found["seconds"]["ici"] + found["seconds"]["dcn"]
    )
    assert found["hours"] == pytest.approx(11_826 * found["seconds"]["step"] / 3600)
    assert found["cost"] == pytest.approx(2 * 8 * found["hours"])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"], "nothing is left behind"


def test_the_compilers_list_of_buffers_is_read() -> None:
    """The form of libtpu 0.0.42's message."""
    message = """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.1G of 15.75G hbm.

  Largest program allocations in hbm:

  1. Size: 5.59G
     Operator: op_name="jit(train_step)/jvp()/while/body/dot_general"
     Shape: f32[8192,183296]{1,0:T(8,128)}
     Unpadded size: 5.59G
     Allocation type: HLO temp
     ==========================

  2. Size: 1.40G
     Shape: f32[183296,2048]{1,0:T(8,128)}
     Allocation type: HLO temp
     ==========================
"""
    assert _named_buffers(message) == [
        ("5.59G", "f32[8192,183296] jit(train_step)/jvp()/while/body/dot_general"),
        ("1.40G", "f32[183296,2048] HLO temp"),
    ]


@pytest.mark.slow
def test_the_1b_step_fits_eight_v5e_chips_with_eight_rows_each(tmp_path: Path) -> None:
    rows = ["--data.text-rows", "32", "--data.music-rows", "32"]
    done = for_tpu("--config", "stage1.py", "--compile-only", "v5e:2x4", *rows, "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows_a_chip"] == 8
    memory = found["chip_bytes"]
    assert memory["total"] < 16 * GIB
    assert memory["donated"] > 0.99 * 3 * 4 * found["parameters"] / 8, "the new state takes the place of the old one"
    assert "Compiled, not run." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.slow
def test_finetuning_the_1b_model_fits_one_chip_of_16_gib(tmp_path: Path) -> None:
    done = for_tpu("--config", "finetune.py", "--compile-only", "v5e:1x1", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    memory, trained = found["chip_bytes"], found["trained_parameters"]
    assert memory["total"] < 16 * GIB
    assert memory["donated"] > 0.99 * memory["arguments"]
    # Llama-3.2-1B frozen, in two bytes each; adapters and music rows in four, with their two moments.
    assert memory["arguments"] == pytest.approx(2 * 1_235_814_400 + 12 * trained, rel=0.02)
    # The gradient of a feed-forward weight, of all layers, would be among the biggest buffers: there is none.
    assert min(each["bytes"] for each in found["biggest_buffers"]) < 2 * 16 * 2048 * 8192
    assert not [each for each in found["biggest_buffers"] if "[16,2048,8192]" in each["what"]]
    assert f"{trained:,} of them train" in done.stdout


@pytest.mark.slow
def test_too_large_a_batch_is_exit_2_and_names_buffers(tmp_path: Path) -> None:
    # Room enough on a v5p, which is where buffers are looked up if the compiler names none.
    rows = ["--data.text-rows", "32", "--data.music-rows", "32", "--remat", "dots"]
    done = for_tpu("--config", "stage1.py", "--compile-only", "v5e:2x4", *rows, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert "does not fit a chip of v5e:2x4" in done.stderr
    assert "with 8 rows a chip" in done.stderr
    assert sum("GiB " in line or "G  " in line for line in lines) >= 3, done.stderr
