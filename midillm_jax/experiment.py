"""``python -m midillm_jax.experiment``: runs an experiment through the other commands, and shows what was recorded.

    python -m midillm_jax.experiment --config experiments/overfit_one.py --out runs/experiments
    python -m midillm_jax.experiment --report docs/experiments

The first runs every arm with every seed, one after the other, goes on where it was stopped, and writes OUT/NAME.json;
with ``--record docs/experiments`` also the record and the page there. The second writes the tables, sentences and plots
of all pages anew from the records beside them; nothing is run.
"""

import dataclasses
import shlex
import shutil
import sys
from pathlib import Path

from midillm_jax import commands, config, config_check
from midillm_jax.errors import UserError
from midillm_jax.experiments import page, plan, running
from midillm_jax.experiments.plan import Experiment, Size


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Needs --config and --out to run, or --report alone."""

    config: str | None = None
    """Such as experiments/overfit_one.py; looked up in the current folder, then in configs/."""
    out: Path = Path("runs/experiments")
    """Folder for data, runs and the record; experiments share its data."""
    size: Size = "demo"
    """demo runs on two CPU cores; 1b states the same at Llama-3.2-1B for a TPU slice or GPUs."""
    midi: str | None = None
    """Folder of MIDI files with MANIFEST.tsv, where an experiment asks for one."""
    text: str | None = None
    """Folder of text files, likewise."""
    base: str | None = None
    """Hugging Face folder of a text model, likewise."""
    general: str | None = None
    """Folder of text that is not on music, likewise."""
    arms: tuple[str, ...] = ()
    """Only these; all if none is named."""
    seeds: tuple[int, ...] = ()
    """Only these; the experiment's own if none is named."""
    record: Path | None = None
    """Folder of pages to write the record and the page's tables to, such as docs/experiments."""
    hardware: str = ""
    """What the record says of the machine; found out if empty."""
    dry_run: bool = False
    """Print every command, check every training config, and do nothing."""
    cost: bool = False
    """Print the chip-hours that the trainings take at the least, and do nothing."""
    report: Path | None = None
    """Folder of pages whose tables and plots are written anew from their records."""


def main(arguments: list[str]) -> None:
    """Runs, or shows."""
    prog = "python -m midillm_jax.experiment"
    chosen = commands.parse(Arguments, arguments, prog=prog, description=__doc__)
    if (chosen.config is None) == (chosen.report is None):
        raise UserError("expected --config experiments/NAME.py to run an experiment, or --report FOLDER to show them")
    if chosen.report is not None:
        for path in page.write_all(chosen.report, cost_table):
            print(path)
        return
    assert chosen.config is not None
    experiment = plan.load(chosen.config, chosen.size)
    if chosen.cost:
        print("\n".join(cost_table(experiment)))
        return
    if chosen.dry_run:
        for line in dry_run(experiment):
            print(line)
        return
    _run(chosen, experiment)


def _run(chosen: Arguments, experiment: Experiment) -> None:
    inputs = {name: value for name in plan.INPUTS if (value := getattr(chosen, name)) is not None}
    if missing := [name for name in experiment.needs() if name not in inputs]:
        raise UserError(f"{experiment.name} reads {' and '.join('--' + name for name in missing)}; name the folder")
    names = [arm.name for arm in experiment.arms]
    if unknown := set(chosen.arms) - set(names):
        raise UserError(f"--arms {' '.join(sorted(unknown))}: no such arm; expected {', '.join(names)}")
    if strange := set(chosen.seeds) - set(experiment.seeds):
        raise UserError(f"--seeds {sorted(strange)}: the experiment's are {experiment.seeds}; expected some of these")
    place = running.Place(chosen.out.absolute(), {name: str(Path(path).absolute()) for name, path in inputs.items()})
    say = lambda told: print(told, file=sys.stderr, flush=True)  # noqa: E731
    running.run(experiment, place, chosen.arms or names, chosen.seeds or experiment.seeds, say)
    found = running.collect(experiment, place, chosen.size, chosen.hardware, rerun(experiment, chosen.size))
    path = place.out / f"{experiment.name}.json"
    found.write(path)
    print(path)
    if chosen.record is not None:
        chosen.record.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, chosen.record / path.name)
        for written in page.write_all(chosen.record, cost_table):
            print(written)


def rerun(experiment: Experiment, size: Size) -> str:
    """The one command that runs it."""
    inputs = "".join(f" --{name} {name.upper()}" for name in experiment.needs())
    sized = "" if size == "demo" else f" --size {size}"
    return f"python -m midillm_jax.experiment --config experiments/{experiment.name}.py{sized}{inputs}"


def trainings(experiment: Experiment) -> list[tuple[str, config.Config]]:
    """Arm and config of every training step; the config is checked.

    Raises:
        UserError: a field that is unknown or cannot be.
    """
    values = {name: name.upper() for name in (*plan.INPUTS, "data", "run")} | {"seed": "0"}
    found = []
    for arm, steps in (("", experiment.prepare), *((arm.name, arm.steps) for arm in experiment.arms)):
        for step in steps:
            if step[0] == "train":
                words = [plan.fill(word, values) for word in step[1:]]
                at = words.index("--config")
                resolved = commands.parse(
                    config.Config,
                    words[:at] + words[at + 2 :],
                    prog="python -m midillm_jax.train",
                    description=None,
                    default=config.load(words[at + 1]),
                )
                config_check.check(resolved)
                found.append((arm, resolved))
    return found


def dry_run(experiment: Experiment) -> list[str]:
    """Every command as a line."""
    trainings(experiment)
    values = {name: "{" + name + "}" for name in (*plan.INPUTS, "data", "run", "seed")}
    lines = []
    for step in dict.fromkeys(experiment.steps()):
        running.command(step, values)  # whether it is there
        program = step[0] if step[0].endswith(".py") else f"-m midillm_jax.{step[0]}"
        lines.append(" ".join(["python", program, *map(shlex.quote, step[1:])]))
    return lines


def cost_table(experiment: Experiment) -> list[str]:
    """A line an arm: tokens and chip-hours at the chips' peak, of all its trainings and one seed."""
    from midillm_jax.training.chips import CHIPS
    from midillm_jax.training.flops import step_flops

    totals: dict[str, tuple[float, float]] = {}
    for arm, run in trainings(experiment):
        tokens = float(run.steps) * (run.data.music_rows + run.data.text_rows) * run.data.row_length
        before = totals.get(arm, (0.0, 0.0))
        totals[arm] = (before[0] + tokens, before[1] + run.steps * step_flops(run).hardware)
    lines = ["| experiment: arm | B tokens | " + " | ".join(f"{chip} chip-hours" for chip in CHIPS) + " |"]
    lines.append("|---" * (2 + len(CHIPS)) + "|")
    for arm, (tokens, flops) in totals.items():
        hours = " | ".join(f"{flops / chip.flops / 3600:.3g}" for chip in CHIPS.values())
        lines.append(f"| {experiment.name}: {arm or 'before the arms'} | {tokens / 1e9:.3g} | {hours} |")
    return lines


if __name__ == "__main__":
    commands.run(main, resumes=True)
