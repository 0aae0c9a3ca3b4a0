"""The first experiment, whole, with one seed: a piece learned by heart comes back note for note."""

import json
from pathlib import Path

import pytest

from midillm_jax import experiment


@pytest.mark.slow
def test_one_piece_comes_back_note_for_note(tmp_path: Path) -> None:
    experiment.main(["--config", "experiments/overfit_one.py", "--out", str(tmp_path), "--seeds", "0"])
    found = json.loads((tmp_path / "overfit_one.json").read_text())["arms"]["by_heart"]["0"]["figures"]
    assert found["same_notes"] == 1
    assert found["extra_notes"] == 0
    assert found["first_bits"] > 20
    assert found["last_bits"] < 0.5
