import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import Config
from midillm_jax.model.llama import Definition, Execution, Params, head_table
from midillm_jax.model.sharding import make_mesh
from midillm_jax.training import drift, run_log
from midillm_jax.training.held_out import open_batches
from midillm_jax.training.loop import train
from midillm_jax.training.step import make_training
from midillm_jax.training.weights import load_params


@pytest.fixture
def second(run: Config, tmp_path: Path) -> Config:
    """Begins with the weights of a short first run."""
    first = dataclasses.replace(run, run_dir=str(tmp_path / "first"), steps=2)
    train(first)
    return dataclasses.replace(run, init_from=first.folder)


def drifts(folder: Path) -> dict[str, float]:
    rows = run_log.read(folder / run_log.FILE)
    return {row["step"]: float(row["text_drift"]) for row in rows if row["kind"] == "validation"}


def log_probabilities(run: Config, params: Params, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Position by position, in float64."""
    definition = Definition(run.model, Execution("float32", "float32", "none"))
    hidden = definition.forward(params, *(jnp.asarray(batch[n]) for n in ("tokens", "positions", "segment_ids")))
    logits = np.asarray(hidden, np.float64) @ np.asarray(head_table(params), np.float64)[:600].T
    found = [
        logits[row, index - 1] - np.log(np.exp(logits[row, index - 1]).sum())
        for row, index in np.ndindex(batch["tokens"].shape)
        if batch["slot"][row, index] == -1 and batch["loss_weights"][row, index] > 0
    ]
    return np.array(found[: drift.POSITIONS])


def test_drift_is_the_divergence_from_the_starting_weights(second: Config) -> None:
    folder = train(second)
    measured = drifts(folder)
    assert measured["6"] > measured["3"] > 0
    with open_batches(make_training(second, make_mesh(second.mesh, jax.devices()[:1])), "validation") as batches:
        batch = next(batches)
    start = log_probabilities(second, load_params(second.init_from)[1], batch)
    end = log_probabilities(second, load_params(str(folder))[1], batch)
    assert len(start) == drift.POSITIONS
    expected = (np.exp(start) * (start - end)).sum(axis=-1).mean()
    assert measured["6"] == pytest.approx(expected, rel=1e-3)


def test_weights_that_stand_still_do_not_drift_and_a_resumed_run_remembers(second: Config) -> None:
    still = dataclasses.replace(second, steps=3, optimizer=dataclasses.replace(second.optimizer, learning_rate=0.0))
    folder = train(still)
    kept = (folder / drift.FILE).read_bytes()
    train(dataclasses.replace(still, steps=6))
    assert drifts(folder) == {"3": 0.0, "6": 0.0}
    assert (folder / drift.FILE).read_bytes() == kept


def test_a_run_that_began_with_nothing_has_nothing_to_drift_from(run: Config) -> None:
    folder = train(dataclasses.replace(run, steps=3))
    rows = run_log.read(folder / run_log.FILE)
    assert {row["text_drift"] for row in rows} == {""}
    assert not (folder / drift.FILE).exists()
