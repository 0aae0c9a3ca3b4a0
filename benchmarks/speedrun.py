"""What the steps of launch/speedrun.sh take at 1B, as its --dry-run shows them: a line a step, name, time and cost.

    python benchmarks/speedrun.py --slice v5litepod-16 --price-per-chip-hour 1.20

Nothing here was run. Train steps are the chip-hours of benchmarks/chip_hours.py, a bound, and the share of it that
training/estimate.py expects; downloads are bytes by the speed of the network; what this machine does is counted by the
rates that docs/data.md and docs/serving.md measured. Where a part is not known the line says so, and means the rest.
"""

import argparse

from chip_hours import chip_hours, stage_flops

from midillm_jax import commands, config, presets
from midillm_jax.errors import UserError
from midillm_jax.inference.request import MusicRequest
from midillm_jax.model.llama import parameter_count
from midillm_jax.training.chips import CHIPS, Topology, parse_topology
from midillm_jax.training.estimate import EXPECTED_SHARE, two_digits

STAGES = {"stage1": "stage1.py", "stage2": "stage2.py"}
MODEL = "llama-3.2-1b"
BOUND_BY_ARITHMETIC = ("v4", "v5e", "v5p")
"""Chips on which the step of these configs was compiled and arithmetic was its longest time (docs/scaling.md)."""
COMPILE_MINUTES = (1, 3)
"""Of one core, a step (docs/scaling.md)."""
LAKH_BYTES, MUSICPILE_BYTES = 1_768_163_879, 8.6e9
"""As data/fetch.py has the one, as its card has the other; MidiCaps' size stands on the Hub alone."""
LAKH_FILES, MIDICAPS_FILES, GIGAMIDI_FILES = 178_561, 168_385, 2_100_000
FILES_A_SECOND, COMPARED_A_SECOND = 1600, 800
"""Of one core: read into shards, and compared by ``prepare dedupe`` (docs/data.md)."""
TOKENS_A_CPU_SECOND = 20.7
"""Written by the 1B shape in bfloat16 at batch 4 (docs/serving.md)."""


def slice_of(accelerator: str) -> Topology:
    """The slice that Google calls ``v5litepod-16``.

    Raises:
        UserError: there is none of that name, or the batch of a stage does not divide over its chips.
    """
    kind, _, count = accelerator.rpartition("-")
    chip = next((chip for chip in CHIPS.values() if chip.accelerator == kind), None)
    known = ", ".join(f"{chip.accelerator}-{16 * chip.accelerator_unit}" for chip in CHIPS.values())
    if chip is None or not count.isdecimal():
        raise UserError(f"--slice {accelerator}: no such accelerator type; expected one such as {known}.")
    chips = int(count) / chip.accelerator_unit
    shapes = {parse_topology(f"{chip.name}:{shape}").chips: shape for shape in chip.shapes}
    if chips not in shapes:
        sizes = ", ".join(f"{kind}-{number * chip.accelerator_unit}" for number in shapes)
        raise UserError(f"--slice {accelerator}: there is no such slice; those of {chip.name} are {sizes}.")
    for name in STAGES.values():
        data = config.load(name).data
        for rows, what in ((data.text_rows, "text"), (data.music_rows, "music")):
            if rows % chips:
                raise UserError(
                    f"--slice {accelerator}: {name} reads {rows} rows of {what} a step, which {chips:.0f} chips do not "
                    "divide; expected a smaller slice."
                )
    return parse_topology(f"{chip.name}:{shapes[int(chips)]}")


def hours(value: float) -> str:
    """A time in words of two digits."""
    return f"{two_digits(value)} h" if value >= 1 else f"{two_digits(60 * value)} min"


def transfer(size: float, mbit: float) -> str:
    """How long so many bytes take."""
    return f"{hours(size * 8 / (mbit * 1e6) / 3600)} at {mbit:g} Mbit/s ({size / 1e9:.1f} GB)"


def trained(least: float, where: Topology, price: float | None) -> tuple[str, str]:
    """Time and cost of train steps that take ``least`` chip-hours at the chip's peak."""
    time = f"{hours(least / where.chips)} of train steps at the least"
    cost = f"{two_digits(least)} chip-hours at the least"
    money = f"; at {price:g} each {two_digits(price * least)} at the least" if price is not None else ""
    if where.chip.name not in BOUND_BY_ARITHMETIC:
        time += f"; how much more on {where.chip.name} is not known"
    else:
        low, high = EXPECTED_SHARE
        time += f", {hours(least / where.chips / high)} to {hours(least / where.chips / low)} expected"
        cost += f", {two_digits(least / high)} to {two_digits(least / low)} expected"
        if price is not None:
            money = f"; at {price:g} each {two_digits(price * least / high)} to {two_digits(price * least / low)}"
    return time, cost + (money or "; --price-per-chip-hour says what that is in money")


def lines(where: Topology, arguments: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Name, time and cost of every step, and of all train steps."""
    base = parameter_count(presets.text_only(presets.PRESETS[MODEL]))
    fetched = 2 * base + MUSICPILE_BYTES + (0 if arguments.gigamidi else LAKH_BYTES)
    files = (GIGAMIDI_FILES if arguments.gigamidi else LAKH_FILES) + MIDICAPS_FILES
    building = files / FILES_A_SECOND + files / COMPARED_A_SECOND
    written = arguments.pieces * 3 * MusicRequest.max_notes
    free = "0 (this machine)"
    low, high = (len(STAGES) * minutes for minutes in COMPILE_MINUTES)
    runs = {stage: config.load(name) for stage, name in STAGES.items()}
    least = {
        stage: chip_hours(stage_flops(STAGES[stage], MODEL, run.loss.kind, run.remat))[where.chip.name]
        for stage, run in runs.items()
    }
    return [
        ("check", f"{low} to {high} min of a core", free),
        ("fetch", f"{transfer(fetched, arguments.mbit)}, MidiCaps not counted", free),
        (
            "build",
            f"{hours(building / 3600)} of a core for MIDI, {transfer(2 * base, arguments.mbit)} for the base to the "
            "bucket; music text and shards not counted",
            f"{free}, and what the bucket costs",
        ),
        *((stage, *trained(spent, where, arguments.price_per_chip_hour)) for stage, spent in least.items()),
        ("delete", "not timed", "0: the slice costs no more"),
        ("export", f"{transfer(4 * parameter_count(presets.PRESETS[MODEL]), arguments.mbit)} from the bucket", free),
        (
            "evaluate",
            f"{hours(written / TOKENS_A_CPU_SECOND / 3600)} of a core to write {arguments.pieces} pieces if all are "
            "full; scoring not counted",
            free,
        ),
        ("all", *trained(sum(least.values()), where, arguments.price_per_chip_hour)),
    ]


def main(words: list[str]) -> None:
    """Prints the slice and the steps, fields parted by tabs."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speedrun.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--slice", required=True)
    parser.add_argument("--price-per-chip-hour", type=float)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--pieces", type=int, default=64)
    parser.add_argument("--gigamidi", action="store_true")
    arguments = parser.parse_args(words)
    where = slice_of(arguments.slice)
    print(
        "slice", where.name, f"{where.chips} chips on {where.hosts} machine{'s' if where.hosts > 1 else ''}", sep="\t"
    )
    for line in lines(where, arguments):
        print(*line, sep="\t")


if __name__ == "__main__":
    commands.run(main)
