"""Every experiment that is shipped states commands that exist, with fields that exist, at both sizes."""

from pathlib import Path

import pytest

from midillm_jax import experiment
from midillm_jax.errors import UserError
from midillm_jax.experiments import plan, running
from midillm_jax.experiments.plan import SIZES, Size

NAMES = {name: name.upper() for name in (*plan.INPUTS, "data", "run", "seed")}
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "experiments").glob("*.py"))


def test_all_ten_are_there() -> None:
    assert len(CONFIGS) == 10


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_can_be_run_as_far_as_can_be_seen(path: Path, size: Size) -> None:
    found = plan.load(f"experiments/{path.name}", size)
    assert found.name == path.stem
    assert f"--config experiments/{path.name}" in path.read_text().split('"""')[1]
    # Resolves and checks each training's config; the other line finds each script.
    widths = {run.model.d_model for _, run in experiment.trainings(found)}
    assert widths <= ({2048} if size == "1b" else {64, 576})
    assert [line for step in found.steps() for line in running.command(step, NAMES)]
    for arm in found.arms:
        assert any("{run}" in word for step in arm.steps for word in step), "an arm's figures go to its own folder"


def test_an_arm_of_equal_compute_has_the_flops_of_the_other() -> None:
    from midillm_jax.training.flops import step_flops

    for size in SIZES:
        found = plan.load("experiments/slot_full.py", size)
        flops = {arm: run.steps * step_flops(run).hardware for arm, run in experiment.trainings(found)}
        assert flops["full_same_compute"] == pytest.approx(flops["slot"], rel=0.02)
        assert flops["full"] > 1.2 * flops["slot"]


def test_a_dry_run_prints_commands_that_can_be_typed() -> None:
    lines = experiment.dry_run(plan.load("experiments/overfit_one.py", "demo"))
    assert lines[0] == "python -m midillm_jax.prepare demo --out '{data}/band40' --pieces 40 --profile small"
    assert lines[-1].startswith("python benchmarks/same_notes.py ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "no get_experiment"),
        ("def get_experiment(size): return 3", "returned int"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        plan.load(str(path), "demo")


def test_a_placeholder_without_a_value_is_told() -> None:
    assert plan.fill("--out={run}/x", {"run": "here"}) == "--out=here/x"
    with pytest.raises(UserError, match=r"\{base\} has no value"):
        plan.fill("{base}", {"run": "here"})
