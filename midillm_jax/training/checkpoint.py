"""Orbax checkpoints: weights, optimiser and the state of every data stream, saved together.

``RUN/checkpoints/STEP/`` holds ``params``, ``optimizer`` and ``guard`` (arrays, training/step.py), ``run`` (JSON: the
streams' states, of all hosts, and Progress), ``config`` (JSON, as in ``RUN/config.json``) and ``digests``
(training/digest.py) of all these. Saves are asynchronous; a step's folder appears under its final name only when it is
whole.

Where a run begins, in this order (the first that applies):

1. its own run folder holds a checkpoint: weights, optimiser, step and streams go on from the newest whose digests are
   those that were saved; newer ones that are damaged are named, and moved to ``RUN/damaged/``; what a finetuning
   freezes is in none, and is read from ``init_from`` again (training/base.py);
2. ``init_from`` names a run folder or a Hugging Face folder: its weights, everything else fresh;
3. fresh weights from ``seed``.

Where checkpoints are there and none can be read, that is an error, not a fresh start.
"""

import contextlib
import dataclasses
import json
import operator
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from midillm_jax import config as configs
from midillm_jax.config import CheckpointConfig, Config
from midillm_jax.errors import TryAgain, UserError
from midillm_jax.training import base, digest, hosts
from midillm_jax.training.events import Events
from midillm_jax.training.step import FROZEN, State, Training, init_state, state_shardings
from midillm_jax.training.stored import FOLDER, Damaged, first_line, read_arrays, read_documents, with_shardings

DAMAGED = "damaged"
"""Of a run: checkpoints that were moved out of the way."""
MUST_NOT_CHANGE = ("model", "finetune", "seed", "param_dtype", "optimizer.master_weights", "optimizer.moment_dtype")
"""Fields whose change would make a checkpoint of the same run unreadable or its continuation another run; what the
batches follow from is in data/identity.py."""


class Evaluation(NamedTuple):
    """A step and its loss on held-out rows."""

    step: int
    loss: float


class Progress(NamedTuple):
    """What is saved of a run beside its arrays and streams."""

    figures: dict[str, float]
    """Sums over the steps since the last logged row, so that the next row counts them in."""
    best: Evaluation | None = None
    """The lowest loss so far."""
    observed: int = 0
    """The last step after which what was due was evaluated and sampled."""


class Restored(NamedTuple):
    """What a run goes on with."""

    state: State
    streams: dict[str, Any]
    """Stream states of all hosts."""
    progress: Progress
    step: int
    """Steps done."""


@dataclasses.dataclass
class Retention:
    """Which checkpoints stay: the newest, those at multiples of ``every_steps``, and the best (an Orbax policy)."""

    config: CheckpointConfig
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer for each, in their order, which is that of their steps."""
        del context
        steps = [each.step for each in checkpoints]
        newest = steps[-self.config.keep :]
        return [step in newest or step % self.config.every_steps == 0 or step == self.best for step in steps]


class Checkpoints:
    """Saves and restores one run.

    A save that fails is told, and tried again a minute later (:attr:`due`); a second failure in a row ends the run.
    """

    def __init__(self, training: Training, events: Events, clock: Callable[[], float] = time.monotonic) -> None:
        # Orbax reports every step of every save through absl; a run's own lines say what matters.
        absl_logging.set_verbosity(absl_logging.FATAL)
        self._training = training
        self._config = training.config.checkpoint
        self._events = events
        self._clock = clock
        self._retention = Retention(self._config)
        self._digests = jax.jit(digest.digests)
        self.folder = Path(training.config.folder).absolute() / FOLDER
        self._opened: ocp.CheckpointManager | None = None
        self._writing: int | None = None
        self._failures = 0
        self._saved_at = clock()
        self.good: int | None = None
        """Step of the newest checkpoint that is known to be whole."""

    @property
    def _manager(self) -> ocp.CheckpointManager:
        # Opening makes the folder: a run that fails before its first save leaves none behind.
        if self._opened is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                create=True,
                # Whoever was killed while saving left a folder under a temporary name.
                cleanup_tmp_directories=True,
                # What a damaged checkpoint says of itself must not keep the others from being listed.
                lightweight_initialize=True,
            )
            self._opened = ocp.CheckpointManager(self.folder, options=options)
        return self._opened

    @property
    def due(self) -> bool:
        """Whether it is time for a temporary checkpoint, or to try again after a failure."""
        minutes = self._config.retry_minutes if self._failures else self._config.every_minutes
        return self._clock() - self._saved_at > 60 * minutes

    def save(self, step: int, state: State, streams: dict[str, Any], progress: Progress) -> None:
        """Begins saving; weights are copied before this returns, files are written behind.

        Args:
            step: steps done.
            streams: this host's stream states (data.batches.Batches.get_state).

        Raises:
            UserError: the save before this one failed, and this one too.
        """
        self.wait()
        documents = {
            # As they will be read: JSON knows no tuples.
            "run": {
                "streams": _gather(streams),
                "figures": progress.figures,
                "best": progress.best and list(progress.best),
                "observed": progress.observed,
            },
            "config": json.loads(configs.to_json(self._training.config)),
        }
        saved = {name: tree for name, tree in state.items() if name != FROZEN}
        digests = {
            "arrays": digest.named(self._digests(saved)),
            "documents": {name: digest.of_json(document) for name, document in documents.items()},
        }
        self._retention.best = progress.best.step if progress.best else None
        self._saved_at = self._clock()
        self._writing = step
        failure: Exception | None = None
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in saved.items()},
                    **{name: ocp.args.JsonSave(document) for name, document in documents.items()},
                    digests=ocp.args.JsonSave(digests),
                ),
            )
        except Exception as error:  # of whatever kind a disk or a bucket has
            failure = error
        if hosts.any_says(failure is not None):
            self._failed(failure or RuntimeError("another host could not begin to write"))

    def save_whole(self, step: int, *saved: Any) -> None:
        """:meth:`save`, done when this returns; tried twice at once.

        Raises:
            UserError: it failed both times.
        """
        self.save(step, *saved)
        self.wait()
        if self.good != step:
            self.save(step, *saved)
            self.wait()

    def poll(self) -> None:
        """Notices what became of a save, without waiting for it. With several hosts, all of them call this together.

        Raises:
            UserError: it failed, and so did the one before it.
        """
        if self._writing is not None and not hosts.any_says(self._manager.is_saving_in_progress()):
            self.wait()

    def wait(self) -> None:
        """Returns when what was begun is written, or has failed, which is told.

        Raises:
            UserError: it failed, and so did the one before it.
        """
        if self._writing is None:
            return
        failure: Exception | None = None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # as in save
            failure = error
        if hosts.any_says(failure is not None):
            self._failed(failure or RuntimeError("another host could not write its part"))
        else:
            self.good, self._writing, self._failures = self._writing, None, 0

    def _failed(self, error: Exception) -> None:
        step, self._writing = self._writing, None
        self._failures += 1
        self._let_go()
        why = f"the checkpoint of step {step} could not be saved in {self.folder} ({first_line(error)})"
        if self._failures > 1:
            last = f"the last good one is of step {self.good}" if self.good is not None else "there is none yet"
            raise UserError(
                f"{why}, nor could the one before it; {last}. Make room there, or see that this machine may write, and "
                "start the same command again."
            ) from error
        self._events.warn("save failed", step or 0, f"{why}; training goes on, and saving is tried again")

    def _let_go(self) -> None:
        """Closes the folder; it is opened anew, without what a failed save left behind, when it is needed again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(Exception):  # the failure that is known already
                opened.close()

    def restore(self) -> Restored | None:
        """What the newest undamaged checkpoint holds; None when there is none at all.

        Raises:
            UserError: it belongs to a run of another shape (old and new values are shown), hosts see different
                checkpoints, or all are damaged.
            TryAgain: several hosts have set a damaged checkpoint aside, and have to begin anew.
        """
        steps = sorted(self._manager.all_steps()) if self.folder.is_dir() else []
        newest = steps[-1] if steps else -1
        if hosts.same_everywhere(newest) is None:
            here = f"step {newest}" if steps else "none"
            raise UserError(
                f"{self.folder}: the newest checkpoint here is {here}, on other hosts another; expected --run-dir to "
                "name a folder that all hosts share, such as a mounted bucket."
            )
        damaged: dict[int, str] = {}
        for step in reversed(steps):
            try:
                restored = self._read(step)
            except Damaged as error:
                damaged[step] = str(error)
                if jax.process_count() > 1 and len(steps) > 1:
                    # The others may be waiting for this process where it will not come.
                    self._set_aside(damaged)
                    raise TryAgain(f"{self.folder / str(step)} {error}; it was moved to {DAMAGED}/.") from None
                continue
            self._set_aside(damaged)
            self.good = step
            return restored
        if steps:
            each = "; ".join(f"step {step} {why}" for step, why in damaged.items())
            raise UserError(
                f"{self.folder}: no checkpoint there can be used: {each}. Move the folder away to begin anew."
            )
        return None

    def _read(self, step: int) -> Restored:
        documents = read_documents(self._manager, step)
        saved, run = documents["config"], documents["run"]
        _check_unchanged(saved, self._training.config, self.folder / str(step))
        shapes = jax.eval_shape(lambda: init_state(self._training, self._training.definition.init(jax.random.key(0))))
        shardings = state_shardings(self._training)
        target = with_shardings(shapes, shardings)
        del target[FROZEN]
        state = read_arrays(self._manager, step, target, documents["digests"])
        frozen = base.frozen(self._training.definition, self._training.config, self.folder.parent)
        state[FROZEN] = base.place(frozen, shardings[FROZEN], self._training.config)
        progress = Progress(run["figures"], run["best"] and Evaluation(*run["best"]), run["observed"])
        return Restored(state, run["streams"], progress, step)

    def _set_aside(self, damaged: dict[int, str]) -> None:
        """Moves checkpoints out of the way, so that their steps can be saved again."""
        for step, why in damaged.items():
            place = self.folder.parent / DAMAGED / str(step)
            with contextlib.suppress(FileNotFoundError):  # another host was faster
                place.parent.mkdir(exist_ok=True)
                os.replace(self.folder / str(step), _free(place))
            sentence = f"{self.folder / str(step)} {why}; it was moved to {place.parent}, the one before it is used"
            self._events.warn("checkpoint damaged", step, sentence)
        if damaged:
            self._let_go()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _free(place: Path) -> Path:
    """``place``, or one beside it that does not exist."""
    number, free = 1, place
    while free.exists():
        number, free = number + 1, place.with_name(f"{place.name}-{number + 1}")
    return free


def _check_unchanged(saved: dict[str, Any], config: Config, where: Path) -> None:
    before = configs.from_json(json.dumps(saved), f"{where}: config")
    for name in MUST_NOT_CHANGE:
        old, new = (operator.attrgetter(name)(each) for each in (before, config))
        if old != new:
            if dataclasses.is_dataclass(old) and type(old) is type(new):
                fields = [field.name for field in dataclasses.fields(old)]
                changed = next(field for field in fields if getattr(old, field) != getattr(new, field))
                name, old, new = f"{name}.{changed}", getattr(old, changed), getattr(new, changed)
            raise UserError(
                f"{where}: was saved with {name} = {old}, but the config now says {new}; change it back, or start "
                "another run with another --name."
            )


def _gather(streams: dict[str, Any]) -> dict[str, Any]:
    """Stream states of all hosts, on every host."""
    if jax.process_count() == 1:
        return streams
    from jax.experimental import multihost_utils

    mine = np.frombuffer(json.dumps(streams).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(mine.size))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: mine.size] = mine
    everyone = multihost_utils.process_allgather(padded)
    merged: dict[str, Any] = {}
    for row, size in zip(everyone, sizes, strict=True):
        merged |= json.loads(row[: int(size)].tobytes())
    return merged
