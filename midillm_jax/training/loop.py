"""The training loop: batches in, steps, evaluation, checkpoints, logs, and a clean end when asked to stop."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from midillm_jax import config_check
from midillm_jax.config import Config
from midillm_jax.data.batches import Batches
from midillm_jax.errors import UserError
from midillm_jax.model import sharding
from midillm_jax.model.finetune import described_parameters
from midillm_jax.training import chips, flops, hosts, run_folder
from midillm_jax.training.checkpoint import Checkpoints, Evaluation, Progress, Restored
from midillm_jax.training.drift import TextDrift
from midillm_jax.training.events import Events
from midillm_jax.training.held_out import HeldOut, open_batches
from midillm_jax.training.metrics import Figures
from midillm_jax.training.run_log import RunLog
from midillm_jax.training.samples import Samples
from midillm_jax.training.step import State, Training, jit_train_step, make_training, place, weights_of
from midillm_jax.training.stopping import Stop
from midillm_jax.training.view import View
from midillm_jax.training.weights import fresh_state
from midillm_jax.training.window import Window

PROGRESS_FILE = "MIDILLM_PROGRESS_FILE"
"""Environment variable that names a file for the last step done: by it launch/supervise.py sees that a run gets on."""
_GIB = 1 << 30
_SHOWN_RECORDS = 8


def train(config: Config, clock: Callable[[], float] = time.monotonic) -> Path:
    """Runs or resumes a training run to its last step.

    Args:
        clock: seconds, by which checkpoints are due.

    Returns:
        the run folder.

    Raises:
        UserError: configuration, data and checkpoint do not fit together, steps are refused again and again
            (training/guard.py), or checkpoints cannot be saved.
        KeyboardInterrupt: Ctrl-C; the run was saved first. SIGTERM and a preemption end the process with code 143
            likewise.
    """
    config_check.check(config)
    training = make_training(config, sharding.make_mesh(config.mesh))
    folder = Path(config.folder)
    first = hosts.is_first()
    with contextlib.ExitStack() as stack:
        events = Events(folder, active=first)
        checkpoints = Checkpoints(training, events, clock)
        stack.callback(checkpoints.close)
        batches = stack.enter_context(open_batches(training, "train"))
        # Opened to see now, not at the first evaluation, that there is held-out data.
        open_batches(training, "validation").close()
        restored = checkpoints.restore()
        if restored is None:
            restored = Restored(fresh_state(training), {}, Progress({}), 0)
        else:
            batches.set_state(restored.streams)
        if restored.step > config.steps:
            raise UserError(
                f"{checkpoints.folder}: has {restored.step} steps, --steps says {config.steps}; ask for more steps."
            )
        # The next batches are made while the step is compiled.
        batches.start_prefetch()
        if first:
            run_folder.describe(config, folder, restored.step, events)
        log = RunLog(folder, restored.step) if first else None
        view = stack.enter_context(View(config.name, config.steps, tokens_per_step(config), active=first))
        stop = stack.enter_context(Stop())
        view.say(_headline(config, training, restored.step))
        Run(training, restored, batches, checkpoints, events, log, view, stop).go()
    return folder


def tokens_per_step(config: Config) -> int:
    """Of all hosts."""
    return (config.data.text_rows + config.data.music_rows) * config.data.row_length


class _RollBack(Exception):
    """The last checkpoint's weights are to go on with the next batch."""


class _Stopping(Exception):
    """A signal asks to stop while the run evaluates or samples."""


class Run:
    """One process's part of a run, from the step it is at to the last."""

    def __init__(
        self,
        training: Training,
        begun: Restored,
        batches: Batches,
        checkpoints: Checkpoints,
        events: Events,
        log: RunLog | None,
        view: View,
        stop: Stop,
    ) -> None:
        """``log`` is None on every process but the first."""
        self._training, self._config = training, training.config
        self._batches, self._checkpoints, self._events = batches, checkpoints, events
        self._log, self._view, self._stop = log, view, stop
        self._held_out = HeldOut(training)
        folder = Path(self._config.folder)
        self._drift: TextDrift | None = None
        if self._config.init_from:
            self._drift = TextDrift(training, folder, begun.step, weights_of(begun.state))
        self._samples = Samples(training, folder)
        self._step_fn = jit_train_step(training)
        self._compiled: Any = None
        self._state: State = begun.state
        self._step = self._saved = begun.step
        self._traced = tuple(map(int, config.profile.split(":"))) if (config := training.config).profile else (0, 0)
        self._tracing = False
        self._best, self._observed = begun.progress.best, begun.progress.observed
        self._window = Window(begun.progress.figures)
        self._pending: tuple[int, dict[str, jax.Array], np.ndarray] | None = None
        self._refused = 0
        self._rollbacks: dict[int, int] = {}
        self._log_failed = False

    def go(self) -> None:
        """Does all steps that are left.

        Raises:
            UserError, KeyboardInterrupt, SystemExit: as :func:`train`.
        """
        self._view.begin(self._step)
        try:
            if self._step == 0:
                # Killed before its first checkpoint, the run was here already.
                if not hosts.first_says(self._log is not None and self._log.has(0, "samples")):
                    self._take_samples()
            elif self._observed < self._step:
                self._observe()  # the run was stopped between this step and its evaluation
            while self._step < self._config.steps:
                try:
                    self._advance()
                except _RollBack:
                    self._roll_back()
        finally:
            if self._tracing:
                self._end_trace()
        self._checkpoints.wait()

    def _advance(self) -> None:
        """One step, and what is due after it."""
        config = self._config
        self._dispatch()
        last = self._step == config.steps
        if self._step % config.log_every_steps == 0 or last:
            self._settle()
            self._write_train_row()
        stopped, due = self._agreed()
        # Whoever asks to stop may not wait for an evaluation; the resumed run makes up for it.
        if not stopped:
            due |= self._observe()
            if jax.process_count() == 1:
                stopped = self._stop.asked
        if self._step % config.checkpoint.every_steps == 0 or due or last or stopped:
            self._settle()
            self._save(whole=bool(last or stopped))
        if stopped:
            sentence = f"stopped after step {self._step}, saved in {self._checkpoints.folder / str(self._step)}"
            self._view.say(sentence)
            self._events.note("stopped", self._step, sentence)
            if stopped == signal.SIGTERM:
                sys.exit(128 + signal.SIGTERM)
            raise KeyboardInterrupt

    def _dispatch(self) -> None:
        """Hands the next batch to the device, and reads the figures of the step before."""
        if not self._batches.ready:
            # As long as the device is busy it does not wait for data, though there be none.
            self._settle()
        with self._window.waiting():
            batch = next(self._batches)
        placed = place(self._training, batch)
        if self._step + 1 == self._traced[0]:
            self._settle()
            jax.profiler.start_trace(f"{self._config.folder}/tensorboard")
            self._tracing = True
        if self._compiled is None:
            with self._aside("compiling ..."):
                self._compiled = self._step_fn.lower(self._state, placed).compile()
                hosts.wait_for_all("step is compiled")
        self._state, sums = self._compiled(self._state, placed)
        # By now the step before is done, so that reading its figures does not stall the device.
        self._settle()
        self._step += 1
        self._pending = (self._step, sums, batch["record_ids"])
        self._view.advance(self._step)
        if self._tracing and self._step == self._traced[1]:
            self._settle()
            self._end_trace()

    def _end_trace(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
        self._view.say(
            f"a trace of steps {self._traced[0]}:{min(self._traced[1], self._step)} is in "
            f"{self._config.folder}/tensorboard"
        )

    def _settle(self) -> None:
        """Reads the figures of the step that was handed out last, which waits for it."""
        if self._pending is None:
            return
        step, sums, record_ids = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(sums).items()}
        self._window.add(values)
        if PROGRESS_FILE in os.environ:
            # A full disk for temporary files is no reason to end.
            with contextlib.suppress(OSError):
                Path(os.environ[PROGRESS_FILE]).write_text(str(step))
        self._refused = 0 if values["applied"] else self._refused + 1
        if self._refused:
            self._refuse(step, values, record_ids)

    def _refuse(self, step: int, values: dict[str, float], record_ids: np.ndarray) -> None:
        """Says which step was not applied, and what the config wants to come next."""
        guard = self._config.guard
        records = sorted({int(record) for record in record_ids.ravel() if record >= 0})
        named = [self._batches.describe(record) for record in records]
        more = " ..." if len(named) > _SHOWN_RECORDS else ""
        loss, norm = values["objective"] / max(values["weight"], 1.0), values["gradient_norm"]
        finite = np.isfinite([loss, norm]).all()
        expected = f"a norm of at most {guard.spike_factor:g} times the usual" if finite else "finite numbers"
        sentence = (
            f"step {step} was not applied: the loss is {loss:.4g} and the gradient norm {norm:.4g}, expected "
            f"{expected}; the batch held {len(records)} records: {', '.join(named[:_SHOWN_RECORDS])}{more}"
        )
        self._events.warn("step not applied", step, sentence, loss=repr(loss), gradient_norm=repr(norm), records=named)
        if guard.action == "stop" or self._refused >= guard.patience:
            row = f" and the {self._refused - 1} before it" if self._refused > 1 else ""
            raise UserError(
                f"{sentence}. The run ends with this step{row}; the last checkpoint is from before. Lower "
                "--optimizer.learning-rate, look at these records, or set --guard.action."
            )
        if guard.action == "rollback":
            raise _RollBack

    def _roll_back(self) -> None:
        """Goes on from the last checkpoint, with the batches that come next."""
        refused, self._pending = self._step, None
        self._state = {}  # its memory is needed
        self._checkpoints.wait()
        begun = self._checkpoints.restore() or Restored(fresh_state(self._training), {}, Progress({}), 0)
        times = self._rollbacks[begun.step] = self._rollbacks.get(begun.step, 0) + 1
        sentence = f"step {refused}: the run went back to step {begun.step}, and the batches since are left out"
        if times > self._config.guard.patience:
            raise UserError(
                f"{sentence}; that was {times} times to the same step. Lower --optimizer.learning-rate, or look at the "
                "records named in events.jsonl."
            )
        self._events.warn("rolled back", refused, sentence, to=begun.step)
        self._state, self._step = begun.state, begun.step
        self._best, self._observed = begun.progress.best, begun.progress.observed
        self._window = Window(begun.progress.figures)
        if self._log is not None:
            self._log.forget_after(self._step)
        self._view.begin(self._step)

    def _observe(self) -> bool:
        """Evaluates and takes samples if they are due after this step. Returns whether the loss is the best so far.

        Who is asked to stop meanwhile leaves the rest of it to the resumed run; of several hosts none may do so alone.
        """
        better = False
        try:
            if self._step % self._config.eval.every_steps == 0 or self._step == self._config.steps:
                self._settle()
                better = self._evaluate()
            self._take_samples()
        except _Stopping:
            self._view.doing("")
            return better
        self._observed = self._step
        return better

    def _look_up(self) -> None:
        """Called between the parts of what takes long beside the steps."""
        if self._stop.asked and jax.process_count() == 1:
            raise _Stopping

    def _take_samples(self) -> None:
        if not self._samples.due(self._step):
            return
        self._settle()
        board = self._log.board if self._log is not None else None
        with self._aside("sampling ..."):
            shares = self._samples.write(self._step, weights_of(self._state), board, self._view.say, self._look_up)
        if self._log is not None and not self._log.has(self._step, "samples"):
            self._write("samples", shares)

    def _evaluate(self) -> bool:
        """Writes the figures on held-out rows down. Returns whether they are the best so far."""
        weights = weights_of(self._state)
        with self._aside("evaluating ..."):
            found = self._held_out.figures(weights, self._look_up)
            if self._drift is not None and self._drift.measurable:
                found["validation"]["text_drift"] = self._drift.nats(weights)
        for kind, shown in found.items():
            if self._log is not None and not self._log.has(self._step, kind):
                self._write(kind, shown)
        loss = found["validation"].get("loss")
        better = loss is not None and (self._best is None or loss < self._best.loss)
        if better:
            self._best = Evaluation(self._step, float(loss or 0.0))
        return better

    def _write_train_row(self) -> None:
        tokens = tokens_per_step(self._config)
        shown = self._window.figures(tokens)
        self._window = Window({})
        devices = self._training.mesh.devices.flat
        peak = chips.peak_flops(devices[0].device_kind)
        if peak is not None:
            model_flops = flops.step_flops(self._config).model / tokens
            shown["mfu"] = shown["tokens_per_second"] * model_flops / (peak * self._training.mesh.size)
        memory = jax.local_devices()[0].memory_stats()
        if memory:
            shown["memory_gib"] = memory["peak_bytes_in_use"] / _GIB
        self._write("train", shown | {"tokens": float(self._step * tokens)})

    def _write(self, kind: str, shown: Figures) -> None:
        self._view.show(self._step, kind, shown)
        if self._log is None:
            return
        failed = self._log.write(self._step, kind, shown)
        if failed is not None and not self._log_failed:
            why = (
                f"figures cannot be written to {self._config.folder} ({failed.strerror}); they are kept and tried again"
            )
            self._events.warn("log not written", self._step, why)
        self._log_failed = failed is not None

    def _save(self, *, whole: bool) -> None:
        if self._saved == self._step:
            return
        save = self._checkpoints.save_whole if whole else self._checkpoints.save
        with self._aside("saving ..."):
            progress = Progress(self._window.sums, self._best, self._observed)
            save(self._step, self._state, self._batches.get_state(), progress)
        self._saved = self._step

    def _agreed(self) -> tuple[int, bool]:
        """Which signal asks to stop, and whether a checkpoint is due: what all processes do after this step.

        Saving is done together, so that no clock or signal may decide alone.
        """
        if jax.process_count() > 1 and self._step % self._config.log_every_steps:
            return 0, False
        self._checkpoints.poll()
        if self._checkpoints.good is not None:
            self._view.saved(self._checkpoints.good)
        stopped, due = self._stop.asked, self._checkpoints.due
        if jax.process_count() == 1:
            return stopped, due
        from jax.experimental import multihost_utils

        wishes = multihost_utils.process_allgather(np.array([stopped, due], np.int32))
        return int(wishes[:, 0].max()), bool(wishes[:, 1].any())

    @contextlib.contextmanager
    def _aside(self, what: str) -> Iterator[None]:
        """Around what is no part of a step."""
        self._view.doing(what)
        with self._window.aside():
            yield
        self._view.doing("")


def _headline(config: Config, training: Training, start: int) -> str:
    devices = training.mesh.devices.flat
    where = f"{training.mesh.size} x {next(devices).device_kind}"
    mesh = " x ".join(f"{axis} {size}" for axis, size in training.mesh.shape.items())
    begin = (
        f"resumed at step {start}" if start else (f"from {config.init_from}" if config.init_from else "fresh weights")
    )
    return (
        f"{config.name}: {described_parameters(config.model, config.finetune)}, {begin}; {where} ({mesh}); "
        f"{config.data.text_rows} text + {config.data.music_rows} music rows of {config.data.row_length} tokens a step"
    )
