"""TPU chips and slices: what each chip can do by its maker's figures, and which slices exist.

Nothing here imports jax: the environment that libtpu needs (:func:`environment`) has to be set before jax starts.

Sources, read 2026-11-24. Google's pages: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, /tpu7x. "How to scale
your model", jax-ml.github.io/scaling-book/tpus, has what they leave out: bandwidth of one ICI link in one direction
and of the data-centre network (DCN) a chip. Chips of a machine: MaxText's table of slices
(accelerator_to_spec_map.py of github.com/AI-Hypercomputer/maxtext). Google's /v5e and /v6e count hardware hosts of
eight chips, of which larger slices make two machines each; a process runs on every machine.
"""

import dataclasses
import math
import os
import re

from midillm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU generation; bandwidths in bytes a second."""

    name: str
    """As libtpu calls it, and as ``--compile-only`` takes it."""
    accelerator: str
    """Prefix of its accelerator types (``v5litepod-8``)."""
    flops: float
    """Peak bfloat16 FLOP/s of a chip."""
    hbm_bytes: int
    hbm_bandwidth: float
    ici_link_bandwidth: float
    """Of one link, one way."""
    dcn_bandwidth: float
    """A chip's share of its host's network."""
    wraps_at: int
    """An axis whose length is a multiple of this is a ring; a shorter one an open line."""
    alone: tuple[int, int, int]
    """Chips of the largest machine that is a slice by itself. Slices of several machines have 2 x 2 chips on each."""
    shapes: tuple[str, ...]
    """Slices that can be asked for (the larger v4, v5p and tpu7x have more)."""
    accelerator_unit: int = 1
    """What accelerator types count a chip as: its cores on v4 and v5p."""
    devices: int = 1
    """JAX devices a chip."""
    megacore: bool = False
    """Whether its two cores make one device."""


_HOST = (2, 2, 1)
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

CHIPS = {
    chip.name: chip
    for chip in (
        # 275 TFLOP/s, 32 GiB, 1,200 GB/s: /v4. Link and DCN: scaling book. Rings where an axis is a multiple of 4: /v4.
        Chip("v4", "v4", 275e12, 32 << 30, 1.2e12, 45e9, 6.25e9, 4, (2, 2, 1), _CUBES, 2, megacore=True),
        # 197 TFLOP/s, 16 GB (libtpu: 16 GiB, 15.75 of them for programs), 819 GB/s, 4 links, 2 x 100 Gbit/s a host of
        # 8 chips, which is 3.125 GB/s a chip: /v5e. Link: scaling book. Rings at 16: scaling book.
        Chip("v5e", "v5litepod", 197e12, 16 << 30, 819e9, 45e9, 3.125e9, 16, (2, 4, 1), _FLAT),
        # 459 TFLOP/s, 95 GiB, 2,765 GB/s, DCN 50 Gbit/s a chip: /v5p. Link: scaling book.
        Chip("v5p", "v5p", 459e12, 95 << 30, 2.765e12, 90e9, 6.25e9, 4, (2, 2, 1), _CUBES, 2, megacore=True),
        # 918 TFLOP/s, 32 GB (libtpu: 32 GiB), 1,638 GB/s, 4 links: /v6e. Link, DCN and rings: scaling book.
        Chip("v6e", "v6e", 918e12, 32 << 30, 1.638e12, 90e9, 12.5e9, 16, (2, 4, 1), _FLAT),
        # 2,307 TFLOP/s, 192 GiB: /tpu7x. 7.4 TB/s, link and DCN: scaling book.
        Chip("tpu7x", "tpu7x", 2307e12, 192 << 30, 7.4e12, 90e9, 12.5e9, 4, (2, 2, 1), _CUBES, 2, devices=2),
    )
}


_KINDS = {
    "TPU v4": CHIPS["v4"].flops,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5e": CHIPS["v5e"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v5p": CHIPS["v5p"].flops,
    "TPU v6 lite": CHIPS["v6e"].flops,
    "TPU v6e": CHIPS["v6e"].flops,
    # JAX has two devices a chip.
    "TPU7x": CHIPS["tpu7x"].flops / 2,
    # Dense bfloat16 of the data sheets at nvidia.com/en-us/data-center, read from their tables' figures with sparsity,
    # halved.
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device by JAX's name of its kind, which may go on (``NVIDIA A100-SXM4-40GB``)."""
    names = [name for name in _KINDS if re.match(rf"{re.escape(name)}(\W|$)", device_kind)]
    return _KINDS[max(names, key=len)] if names else None


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or more equal slices of a chip."""

    chip: Chip
    shape: tuple[int, ...]
    """Chips along each axis of one slice."""
    slices: int = 1

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def host_bounds(self) -> tuple[int, ...]:
        """Chips of one machine along each axis."""
        shape = (*self.shape, 1)[:3]
        return shape if math.prod(shape) <= math.prod(self.chip.alone) else _HOST

    @property
    def hosts(self) -> int:
        """Machines, on each of which one process runs."""
        return self.chips // math.prod(self.host_bounds)

    @property
    def name(self) -> str:
        """As ``--compile-only`` takes it."""
        one = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices}x{one}"

    def links(self, axis: int) -> int:
        """ICI links by which a chip can receive along an axis when all chips do: two in a ring, one in a line."""
        size = self.shape[axis]
        return 0 if size == 1 else 2 if size % self.chip.wraps_at == 0 else 1


def parse_topology(text: str) -> Topology:
    """``v5e:2x4`` or, for two slices, ``2xv5e:4x4``.

    Raises:
        UserError: an unknown chip or a shape that cannot be asked for; the known ones are listed.
    """
    found = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)+)", text)
    chip = CHIPS.get(found[2]) if found else None
    if found is None or chip is None or (found[1] and int(found[1]) < 1):
        known = ", ".join(f"{chip.name}:{chip.shapes[2]}" for chip in CHIPS.values())
        raise UserError(
            f"--compile-only {text}: expected a chip and the shape of its slice, such as {known}, or 2xv5e:4x4 for two "
            f"slices; the chips known here are {', '.join(CHIPS)}."
        )
    shape = tuple(map(int, found[3].split("x")))
    # The largest cubes differ by generation; from 4 x 4 x 4 on, axes are multiples of 4 (/v4, /v5p, /tpu7x).
    cube = len(chip.shapes[0].split("x")) == len(shape) == 3 and all(size % 4 == 0 for size in shape)
    if found[3] not in chip.shapes and not cube:
        more = " and larger ones with axes that are multiples of 4" if len(chip.shapes[0].split("x")) == 3 else ""
        raise UserError(
            f"--compile-only {text}: there is no such slice; those of {chip.name} are {', '.join(chip.shapes)}{more}."
        )
    return Topology(chip, shape, int(found[1] or 1))


def environment(topology: Topology) -> dict[str, str]:
    """Variables under which libtpu describes a slice that is not attached, and JAX starts on the CPU."""
    chips = math.prod(topology.shape)
    return {
        "JAX_PLATFORMS": "cpu",
        # Without it libtpu looks for a metadata server, for minutes.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_ACCELERATOR_TYPE": f"{topology.chip.accelerator}-{chips * topology.chip.accelerator_unit}",
        # Else a lock file stops a second compilation beside this one, or beside a training run.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # Else the compiler gives up before it knows which buffers do not fit, and cannot name them.
        "LIBTPU_INIT_ARGS": f"{os.environ.get('LIBTPU_INIT_ARGS', '')} --xla_tpu_impure_oom_fast_exit_threshold=-1",
        # Programs of slices that are not here are no use to a later run.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        # A pod runs optimised programs, whatever is set for those of this machine.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def topology_options(topology: Topology) -> dict[str, object]:
    """What libtpu has to be told beside the topology's name."""
    options: dict[str, object] = {"chips_per_host_bounds": list(topology.host_bounds)}
    if topology.chip.megacore:
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    return options
