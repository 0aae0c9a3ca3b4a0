"""The committed pages say what the committed records give; and the code says what is not resolved."""

import dataclasses
from pathlib import Path

import pytest

from midillm_jax import experiment
from midillm_jax.errors import UserError
from midillm_jax.experiments import effects, page, plot
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged
from midillm_jax.experiments.record import Outcome, Record

FOLDER = Path(__file__).parents[2] / "docs" / "experiments"
STATED = Experiment(
    name="tiny",
    question="Which?",
    arms=(Arm("a", "the one", ()), Arm("b", "the other", ())),
    figures=(Figure("bits", "bits a note", Logged("", "")), Figure("share", "share", Logged("", ""), "higher")),
    curves=(Curve("bits & pieces", "bits_per_note"),),
)


def recorded(arms: dict[str, list[tuple[float, float]]]) -> Record:
    def outcome(bits: float, share: float) -> Outcome:
        return Outcome(60.0, {"bits": bits, "share": share}, {"bits & pieces": ((1, 2 * bits), (2, bits))})

    found = {name: {seed: outcome(*pair) for seed, pair in enumerate(pairs)} for name, pairs in arms.items()}
    return Record("tiny", "demo", "2026-01-01", "a machine", "software", "command", found)


def test_pages_and_plots_are_those_of_the_records() -> None:
    found = page.contents(FOLDER, experiment.cost_table)
    for path, content in found.items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: make report writes it anew"
    configs = {path.stem for path in (FOLDER.parents[1] / "configs" / "experiments").glob("*.py")}
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert pages == configs
    assert {path.stem for path in FOLDER.glob("*.json")} == {path.stem for path in FOLDER.glob("*.svg")} <= configs


def test_a_difference_of_chance_is_not_resolved_and_one_of_all_seeds_is() -> None:
    text = page.shown(STATED, recorded({"a": [(9, 0.5), (10, 0.5), (11, 0.5)], "b": [(8, 0.6), (8.9, 0.4), (10, 0.5)]}))
    bits, share = (line for line in text.splitlines() if line.startswith("| `b` |"))
    assert "**better**" in bits
    assert "-1.03 [" in bits
    assert effects.NOT_RESOLVED in share


def test_worse_is_said_too() -> None:
    text = page.shown(
        STATED, recorded({"a": [(9, 0.5), (10, 0.6), (11, 0.5)], "b": [(10, 0.3), (11.1, 0.4), (12, 0.3)]})
    )
    assert text.count("**worse**") == 2


def test_of_one_seed_nothing_is_resolved() -> None:
    text = page.shown(STATED, recorded({"a": [(9, 0.5)], "b": [(1, 0.9)]}))
    assert effects.NOT_RESOLVED in text
    assert "better" not in text


def test_a_count_has_no_seeds() -> None:
    exact = dataclasses.replace(STATED, exact=True)
    text = page.shown(exact, recorded({"a": [(9, 0.5)], "b": [(1, 0.9)]}))
    assert "exact counts" in text
    assert effects.NOT_RESOLVED not in text


def test_an_arm_that_was_not_run_is_named() -> None:
    assert "Not run: `b` (the other)." in page.shown(STATED, recorded({"a": [(9, 0.5), (8, 0.5)]}))


def test_the_plot_is_a_document_with_every_arm() -> None:
    import xml.etree.ElementTree as ElementTree

    drawn = plot.draw(STATED, recorded({"a": [(9, 0.5), (8, 0.5)], "b": [(1, 0.9), (2, 0.7)]}))
    root = ElementTree.fromstring(drawn)
    words = " ".join(root.itertext())
    assert "bits & pieces" in words
    assert "the one" in words
    assert "the other" in words
    assert drawn.count('class="mean"') == 4  # two lines, and two in the key


def test_a_page_without_markers_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- order: overfit_one -->\n")
    (tmp_path / "overfit_one.md").write_text("**In one line:** x\n")
    with pytest.raises(UserError, match="<!-- record -->"):
        page.contents(tmp_path, experiment.cost_table)
