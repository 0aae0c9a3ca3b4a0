"""The training loop: batches in, steps, evaluation, checkpoints, logs, and a clean end when asked to stop."""

import contextlib
import functools
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import jax
import numpy as np

from midillm_jax import config as configs
from midillm_jax import config_check
from midillm_jax.config import Config
from midillm_jax.data.batches import Batches
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.model import sharding
from midillm_jax.model.finetune import described_parameters
from midillm_jax.training import hosts, metrics, optimizer
from midillm_jax.training.checkpoint import Checkpoints, fresh_state
from midillm_jax.training.step import State, Training, eval_step, jit_train_step, make_training, place, weights_of

Sums = dict[str, float]


def train(config: Config) -> Path:
    """Runs or resumes a training run to its last step.

    Returns:
        the run folder.

    Raises:
        UserError: configuration, data and checkpoint do not fit together, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C; the run was saved first. SIGTERM ends the process with code 143 likewise.
    """
    config_check.check(config)
    training = make_training(config, sharding.make_mesh(config.mesh))
    folder = Path(config.folder)
    first = hosts.is_first()
    checkpoints = Checkpoints(training)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        batches = stack.enter_context(open_batches(training, "train"))
        # Opened to see now, not at the first evaluation, that there is held-out data.
        open_batches(training, "validation").close()
        restored = checkpoints.restore()
        if restored is None:
            start, state, figures = 0, fresh_state(training), Sums()
        else:
            state, streams, figures, start = restored
            batches.set_state(streams)
        if start > config.steps:
            raise UserError(
                f"{checkpoints.folder}: has {start} steps, --steps says {config.steps}; ask for more steps."
            )
        # The first batches are made while the step is compiled.
        batches.start_prefetch()
        if first:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "config.json", configs.to_json(config))
        log = metrics.RunLog(folder, config.name, config.steps, start, active=first)
        stack.callback(log.close)
        stop = stack.enter_context(_stop_signals())
        log.say(_headline(config, training, start))
        _run(config, training, state, start, figures, batches, checkpoints, log, stop)
    return folder


def _run(
    config: Config,
    training: Training,
    state: State,
    start: int,
    figures: Sums,
    batches: Batches,
    checkpoints: Checkpoints,
    log: metrics.RunLog,
    stop: list[int],
) -> None:
    step_fn = jit_train_step(training)
    evaluate = jax.jit(functools.partial(eval_step, training), out_shardings=sharding.replicated(training.mesh))
    rate = optimizer.schedule(config.optimizer, config.steps)
    tokens = (config.data.text_rows + config.data.music_rows) * config.data.row_length
    window = _Window(figures)
    compiled: Any = None
    pending: tuple[int, dict[str, jax.Array], np.ndarray] | None = None
    saved_at, saved_step = time.monotonic(), start

    def settle() -> None:
        """Reads the figures of the step before: by now it is done, so that reading does not stall the device."""
        nonlocal pending
        if pending is not None:
            window.add(*pending, batches)
            pending = None

    due_again = start and (start % config.eval.every_steps == 0 or start == config.steps)
    if due_again and not hosts.first_says(log.has(start, "validation")):
        log.write(start, "validation", validate(config, training, evaluate, state))
    for step in range(start + 1, config.steps + 1):
        if not batches.ready:
            # As long as the device is busy it does not wait for data, though there be none.
            settle()
        with window.waiting():
            batch = next(batches)
        placed = place(training, batch)
        if compiled is None:
            with window.aside():
                compiled = step_fn.lower(state, placed).compile()
                hosts.wait_for_all("step is compiled")
        state, sums = compiled(state, placed)
        settle()
        pending = (step, sums, batch["record_ids"])
        log.advance(step)
        last = step == config.steps
        if step % config.log_every_steps == 0 or last:
            settle()
            shown = window.figures(tokens)
            window = _Window({})
            log.write(step, "train", shown | {"learning_rate": float(rate(step - 1)), "tokens": float(step * tokens)})
        due = time.monotonic() - saved_at > 60 * config.checkpoint.every_minutes
        stopped, due = _agreed(config, step, stop[0] if stop else 0, due)
        # Whoever asks to stop may not wait for an evaluation; the resumed run makes up for it.
        if (step % config.eval.every_steps == 0 or last) and not stopped:
            settle()
            with window.aside():
                log.write(step, "validation", validate(config, training, evaluate, state))
        if step % config.checkpoint.every_steps == 0 or due or last or stopped:
            settle()
            with window.aside():
                checkpoints.save(step, state, batches.get_state(), window.sums)
            saved_at, saved_step = time.monotonic(), step
        if stopped:
            checkpoints.wait()
            log.say(f"stopped after step {saved_step}, saved in {checkpoints.folder / str(saved_step)}")
            if stopped == signal.SIGTERM:
                sys.exit(128 + signal.SIGTERM)
            raise KeyboardInterrupt
    checkpoints.wait()


def _agreed(config: Config, step: int, stopped: int, due: bool) -> tuple[int, bool]:
    """What all processes do after a step: saving is done together, so that no clock or signal may decide alone."""
    if jax.process_count() == 1:
        return stopped, due
    if step % config.log_every_steps:
        return 0, False
    from jax.experimental import multihost_utils

    wishes = multihost_utils.process_allgather(np.array([stopped, due], np.int32))
    return int(wishes[:, 0].max()), bool(wishes[:, 1].any())


def validate(config: Config, training: Training, evaluate: Any, state: State) -> metrics.Figures:
    """Figures on held-out rows; the same rows every time."""
    total: Sums = {}
    with open_batches(training, "validation") as held_out:
        for _ in range(config.eval.batches):
            sums = jax.device_get(evaluate(weights_of(state), place(training, next(held_out))))
            total = {name: total.get(name, 0.0) + float(value) for name, value in sums.items()}
    return metrics.figures(total)


def open_batches(training: Training, split: Literal["train", "validation"]) -> Batches:
    """This host's batches of a split."""
    config = training.config
    return Batches(
        config.data,
        split=split,
        text_vocab_size=config.model.text_vocab_size,
        seed=config.seed,
        host=training.share,
        hosts=training.shares,
    )


class _Window:
    """Sums and times since the last logged row; compiling, saving and evaluating are left out of the times."""

    def __init__(self, sums: Sums) -> None:
        """``sums`` are those of steps before this process began, which count for all but the times."""
        self.sums = dict(sums)
        self._norm = 0.0
        self._steps = 0
        self._waited = 0.0
        self._aside = 0.0
        self._since = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the wait for data of a device that has nothing else to do."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Times what is no part of a step."""
        began = time.monotonic()
        yield
        self._aside += time.monotonic() - began

    def add(self, step: int, sums: dict[str, jax.Array], record_ids: np.ndarray, batches: Batches) -> None:
        values = {name: float(value) for name, value in jax.device_get(sums).items()}
        if not math.isfinite(values["objective"]) or not math.isfinite(values["gradient_norm"]):
            records = sorted({int(record) for record in record_ids.ravel() if record >= 0})
            named = ", ".join(batches.describe(record) for record in records[:8])
            more = " ..." if len(records) > 8 else ""
            raise UserError(
                f"step {step}: the loss is {values['objective']} and the gradient norm {values['gradient_norm']}, "
                f"expected finite numbers; the batch held {len(records)} records: {named}{more}. The last "
                "checkpoint is from before; lower --optimizer.learning-rate or look at these records."
            )
        self._norm = values.pop("gradient_norm")
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        self._steps += 1

    def figures(self, tokens_per_step: int) -> metrics.Figures:
        elapsed = time.monotonic() - self._since - self._aside
        return metrics.figures(self.sums) | {
            "gradient_norm": self._norm,
            "tokens_per_second": self._steps * tokens_per_step / elapsed,
            "data_wait_share": self._waited / elapsed,
        }


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that the step at hand is finished and saved; a second SIGINT stops at once."""
    caught: list[int] = []

    def catch(number: int, _: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
