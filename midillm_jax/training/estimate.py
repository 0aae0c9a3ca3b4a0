"""From a compiled step to what a run of it would take: memory, roofline time, hours and cost, as a table or JSON.

The roofline is the longest of three times at the chip's published peaks, as if they overlapped fully: arithmetic
(hardware FLOPs), main memory (the compiled program's traffic), network (its collectives). No step is faster; how much
slower steps are is said in docs/scaling.md. Compiled, not run.
"""

import dataclasses
import sys
from collections import Counter
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from midillm_jax.config import Config
from midillm_jax.model.finetune import described_parameters, trained_count
from midillm_jax.model.llama import parameter_count
from midillm_jax.training import chips, hlo
from midillm_jax.training.compile import Compiled
from midillm_jax.training.flops import StepFlops, step_flops

GIB = 1 << 30
GB = 1e9

EXPECTED_SHARE = (0.5, 0.85)
"""Of the arithmetic roofline, what published runs that it bounds reached (docs/scaling.md, "Checked against"). Of runs
bound by memory or network nothing was found."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one step takes on a slice; seconds at the roofline, bytes per chip."""

    config: Config
    topology: chips.Topology
    compiled: Compiled
    flops: StepFlops
    compute_seconds: float
    memory_seconds: float
    ici_seconds: float
    dcn_seconds: float

    @property
    def step_seconds(self) -> float:
        return max(self.compute_seconds, self.memory_seconds, self.ici_seconds + self.dcn_seconds)

    @property
    def bound(self) -> str:
        """Which of the three times is the longest."""
        times = {
            "arithmetic": self.compute_seconds,
            "memory": self.memory_seconds,
            "network": self.ici_seconds + self.dcn_seconds,
        }
        return max(times, key=lambda name: times[name])

    @property
    def expected_share(self) -> tuple[float, float] | None:
        """Of the roofline's speed, what to expect; None where nobody has published it."""
        return EXPECTED_SHARE if self.bound == "arithmetic" else None

    @property
    def mfu(self) -> float:
        """Model FLOPs by what the chips could do in the step's time."""
        return self.flops.model / (self.step_seconds * self.topology.chips * self.topology.chip.flops)

    @property
    def step_tokens(self) -> int:
        data = self.config.data
        return (data.text_rows + data.music_rows) * data.row_length

    @property
    def rows_a_chip(self) -> float:
        return self.step_tokens / self.config.data.row_length / self.topology.chips

    @property
    def hours(self) -> float:
        return self.config.steps * self.step_seconds / 3600

    @property
    def total_bytes(self) -> int:
        """What a step holds of a chip's memory: arguments and temporaries, or the compiler's peak if that is more."""
        compiled = self.compiled
        held = compiled.argument_bytes + compiled.temporary_bytes
        return max(held, compiled.peak_bytes) * self.topology.chip.devices

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.topology.chip.hbm_bytes


def estimate(config: Config, topology: chips.Topology, compiled: Compiled) -> Estimate:
    """Puts the compiler's figures, the model's FLOPs and the chip's peaks together."""
    flops = step_flops(config, splash=compiled.training.definition.run.attention == "splash")
    ici, dcn = network_seconds(compiled, topology)
    chip = topology.chip
    return Estimate(
        config=config,
        topology=topology,
        compiled=compiled,
        flops=flops,
        compute_seconds=flops.hardware / (topology.chips * chip.flops),
        memory_seconds=compiled.memory_traffic_bytes * chip.devices / chip.hbm_bandwidth,
        ici_seconds=ici,
        dcn_seconds=dcn,
    )


def network_seconds(compiled: Compiled, topology: chips.Topology) -> tuple[float, float]:
    """Least seconds a step's collectives take on ICI and on DCN, each at full speed, one after another.

    A group receives over the links of those axes of the slice along which its devices differ.
    """
    places = [tuple(device.coords) for device in compiled.training.mesh.devices.flat]
    chip = topology.chip
    ici = dcn = 0.0
    for each in compiled.collectives:
        if each.between_slices:
            moved = hlo.wire_bytes(each.kind, each.bytes, topology.slices)
            dcn += each.times * moved / (chip.dcn_bandwidth / chip.devices)
            continue
        group = [places[member] for member in each.group] or places
        if len(group) > 1:
            spread = [axis for axis in range(len(topology.shape)) if len({where[axis] for where in group}) > 1]
            links = sum(topology.links(axis) for axis in spread) if each.kind != "collective-permute" else 1
            moved = hlo.wire_bytes(each.kind, each.bytes, len(group))
            ici += each.times * moved / (max(1, links) * chip.ici_link_bandwidth / chip.devices)
    return ici, dcn


def collectives_by_kind(compiled: Compiled) -> dict[str, tuple[int, float]]:
    """Kind (and whether between slices) -> how many a step runs, and bytes that a device receives by them."""
    counts: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for each in compiled.collectives:
        mesh = compiled.training.mesh
        members = mesh.shape["slice"] if each.between_slices else len(each.group) or mesh.size
        kind = each.kind + (" between slices" if each.between_slices else "")
        counts[kind] += each.times
        moved[kind] += each.times * hlo.wire_bytes(each.kind, each.bytes, members)  # type: ignore[assignment]
    return {kind: (counts[kind], float(moved[kind])) for kind in sorted(counts)}


def as_dict(found: Estimate, price: float | None) -> dict[str, Any]:
    """Everything that :func:`show` prints, in seconds, bytes and FLOPs, for JSON."""
    compiled, topology, devices = found.compiled, found.topology, found.topology.chip.devices
    chip_hours = found.hours * topology.chips
    return {
        "compiled_not_run": True,
        "jax": jax.__version__,
        "config": found.config.name,
        "parameters": parameter_count(found.config.model),
        "trained_parameters": trained_count(found.config.model, found.config.finetune),
        "topology": topology.name,
        "chips": topology.chips,
        "hosts": topology.hosts,
        "mesh": dict(compiled.training.mesh.shape),
        "loss": found.config.loss.kind,
        "remat": found.config.remat,
        "accumulation_steps": found.config.optimizer.accumulation_steps,
        "rows_a_chip": found.rows_a_chip,
        "step_tokens": found.step_tokens,
        "fits": found.fits,
        "chip_bytes": {
            "arguments": compiled.argument_bytes * devices,
            "donated": compiled.donated_bytes * devices,
            "temporaries": compiled.temporary_bytes * devices,
            "peak": compiled.peak_bytes * devices,
            "total": found.total_bytes,
            "chip": topology.chip.hbm_bytes,
        },
        "biggest_buffers": [{"what": what, "bytes": size} for what, size in compiled.biggest],
        "flops": dataclasses.asdict(found.flops),
        "collectives": {
            kind: {"count": count, "device_bytes": moved}
            for kind, (count, moved) in collectives_by_kind(compiled).items()
        },
        "loops_of_unknown_length": compiled.unknown_loops,
        "seconds": {
            "arithmetic": found.compute_seconds,
            "memory": found.memory_seconds,
            "ici": found.ici_seconds,
            "dcn": found.dcn_seconds,
            "step": found.step_seconds,
        },
        "bound": found.bound,
        "mfu": found.mfu,
        "tokens_per_second": found.step_tokens / found.step_seconds,
        "steps": found.config.steps,
        "tokens": found.config.steps * found.step_tokens,
        "hours": found.hours,
        "chip_hours": chip_hours,
        "expected_share": found.expected_share,
        "price_per_chip_hour": price,
        "cost": None if price is None else price * chip_hours,
    }


def show(found: Estimate, price: float | None) -> None:
    """Prints the estimate as a table of at most 100 columns."""
    compiled, topology, config = found.compiled, found.topology, found.config
    chip, devices = topology.chip, topology.chip.devices
    chip_hours = found.hours * topology.chips
    tokens = config.steps * found.step_tokens

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    add = table.add_row
    mesh = " x ".join(f"{axis} {size}" for axis, size in compiled.training.mesh.shape.items())
    add("slice", f"{topology.name}: {topology.chips} chips on {topology.hosts} host(s), mesh {mesh}")
    parameters = described_parameters(config.model, config.finetune)
    add("model", f"{parameters}, loss {config.loss.kind}, remat {config.remat}")
    parts = config.optimizer.accumulation_steps
    in_parts = f" in {parts} parts" if parts > 1 else ""
    add("batch", f"{found.rows_a_chip:g} rows of {config.data.row_length} tokens a chip{in_parts}; "
        f"{found.step_tokens:,} tokens a step")  # fmt: skip
    add("memory of a chip", f"arguments {_gib(compiled.argument_bytes * devices)} (donated "
        f"{_gib(compiled.donated_bytes * devices)}), temporaries {_gib(compiled.temporary_bytes * devices)}; "
        f"{_gib(found.total_bytes)} of {_gib(chip.hbm_bytes)} GiB")  # fmt: skip
    add("FLOPs a step", f"model {found.flops.model:.3e}, with recomputation {found.flops.hardware:.3e}")
    for kind, (count, moved) in collectives_by_kind(compiled).items():
        add(kind, f"{count:,} a step, {moved / GB:.2f} GB received by each {'chip' if devices == 1 else 'device'}")
    if compiled.unknown_loops:
        add("note", f"{compiled.unknown_loops} loop(s) of unknown length are counted once")
    arithmetic, memory, ici, dcn = (
        f"{1e3 * seconds:.0f} ms"
        for seconds in (found.compute_seconds, found.memory_seconds, found.ici_seconds, found.dcn_seconds)
    )
    network = f"{ici} ICI + {dcn} DCN" if topology.slices > 1 else f"{ici} ICI"
    add("roofline", f"{1e3 * found.step_seconds:.0f} ms a step, bound by {found.bound}: the longest of "
        f"arithmetic {arithmetic}, memory {memory}, network {network}")  # fmt: skip
    add("MFU at the roofline", f"{found.mfu:.1%}")
    add("tokens a second", f"{found.step_tokens / found.step_seconds:,.0f}{_expect(found)}")
    add("the whole run", f"{config.steps:,} steps, {tokens / 1e9:.2f} B tokens")
    add("hours", f"{two_digits(found.hours)}{_range(found, found.hours)}")
    add("chip-hours", f"{two_digits(chip_hours)}{_range(found, chip_hours)}")
    if price is None:
        add("cost", "say what a chip costs an hour: --price-per-chip-hour")
    else:
        cost = price * chip_hours
        add("cost", f"{two_digits(cost)} at {price:g} a chip and hour{_range(found, cost)}")
    # As wide as the terminal; 100 columns where the output is a file.
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    print("Compiled, not run. Hours are of train steps alone.")


def _expect(found: Estimate) -> str:
    if found.expected_share is None:
        return f"; how much of it is reached is not known where {found.bound} is the bound (docs/scaling.md)"
    low, high = found.expected_share
    return f"; expect {low:.2f} to {high:.2f} of it, as published runs bound by arithmetic (docs/scaling.md)"


def _range(found: Estimate, least: float) -> str:
    """What to expect of something that goes with time, where that is known."""
    if found.expected_share is None:
        return ""
    low, high = found.expected_share
    return f"; expect {two_digits(least / high)} to {two_digits(least / low)}"


def two_digits(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.2g}" if value < 9.95 else f"{value:,.0f}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def does_not_fit(found: Estimate) -> str:
    """What to say of a program that compiles but takes more than the chip has."""
    lines = [f"  {_gib(size):>6} GiB  {what}" for what, size in found.compiled.biggest]
    return "\n".join(
        [
            f"the step does not fit a chip of {found.topology.name}: it takes {_gib(found.total_bytes)} GiB of "
            f"{_gib(found.topology.chip.hbm_bytes)}; lower --data.text-rows and --data.music-rows, or raise "
            "--optimizer.accumulation-steps or --mesh.fsdp. The biggest buffers of a chip:",
            *lines,
        ]
    )
