"""Compiles the train step for a TPU slice that is not attached, as far as the compiler's word goes: does it fit, and
what does it hold and move. libtpu does the work on any x86 Linux machine; no data is read and no weight made.

The environment of training/chips.py has to be set before jax is imported.
"""

import dataclasses
import re
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from midillm_jax.config import Config
from midillm_jax.errors import UserError, first_line
from midillm_jax.model import sharding
from midillm_jax.training import chips, hlo
from midillm_jax.training.step import (
    DEVICE_FIELDS,
    Training,
    init_state,
    jit_train_step,
    make_training,
    state_shardings,
)

LISTED = 8
"""Buffers that are named when a step does not fit."""
ROOMY = "v5p"
"""The chip with the most memory that is one JAX device."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one device's program."""

    training: Training
    argument_bytes: int
    """State and batch."""
    donated_bytes: int
    """Of the arguments, those whose memory the results take over."""
    temporary_bytes: int
    peak_bytes: int
    biggest: tuple[tuple[str, int], ...]
    """The largest temporaries: where they come from, and their bytes."""
    collectives: tuple[hlo.Collective, ...]
    memory_traffic_bytes: int
    unknown_loops: int


def make_training_for(config: Config, topology: chips.Topology) -> Training:
    """The step's static part on devices that are not there.

    Raises:
        UserError: mesh, batch and slice do not fit together.
        ModuleNotFoundError: libtpu is not installed.
    """
    import libtpu  # noqa: F401  (its absence is told here by name; jax finds it by itself)
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}",
        **chips.topology_options(topology),
    )
    try:
        mesh = sharding.make_mesh(config.mesh, described.devices)
    except NotImplementedError as error:
        raise UserError(
            f"--compile-only {topology.name}: the mesh does not lie on the slice's axes "
            f"({first_line(error)}); choose --mesh sizes that are products of them."
        ) from None
    return make_training(config, mesh)


def compile_step(config: Config, topology: chips.Topology) -> Compiled:
    """Compiles the very step that training/loop.py runs.

    Raises:
        UserError: it does not fit the chip's memory (the biggest buffers are named), or mesh, batch and slice do not
            fit together.
        ModuleNotFoundError: libtpu is not installed.
    """
    training = make_training_for(config, topology)
    lowered = jit_train_step(training).lower(abstract_state(training), abstract_batch(training))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(_does_not_fit(config, topology, str(error))) from None
    return _read(training, compiled)


def _read(training: Training, compiled: Any) -> Compiled:
    memory = compiled.memory_analysis()
    program = hlo.parse(compiled.as_text())
    return Compiled(
        training=training,
        argument_bytes=memory.argument_size_in_bytes,
        donated_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        biggest=tuple(hlo.biggest(program, LISTED)),
        collectives=tuple(hlo.collectives(program)),
        memory_traffic_bytes=hlo.memory_traffic(program),
        unknown_loops=program.unknown_loops,
    )


def abstract_state(training: Training) -> Any:
    """The state as shapes, placed as a run places it."""
    shapes = jax.eval_shape(lambda: init_state(training, training.definition.init(jax.random.key(0))))
    return jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        shapes,
        state_shardings(training),
    )


def abstract_batch(training: Training) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as training.step.place gives it, as shapes."""
    data, parts = training.config.data, training.config.optimizer.accumulation_steps
    shape = (parts, (data.text_rows + data.music_rows) // parts, data.row_length)
    placed = NamedSharding(training.mesh, PartitionSpec(None, sharding.BATCH_AXES))
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=placed) for name, dtype in DEVICE_FIELDS.items()}


def _does_not_fit(config: Config, topology: chips.Topology, message: str) -> str:
    """One sentence and the list, from what the compiler wrote."""
    sizes = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", message) or re.search(
        r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", message
    )
    needed = f"needs {sizes[1]}iB of {sizes[2]}iB" if sizes else "needs more than it has"
    rows = (config.data.text_rows + config.data.music_rows) / topology.chips
    sentence = (
        f"the step does not fit a chip of {topology.name}: it {needed} with {rows:g} rows a chip; lower "
        "--data.text-rows and --data.music-rows, or raise --optimizer.accumulation-steps or --mesh.fsdp."
    )
    buffers, where = _named_buffers(message), "The biggest buffers of a chip:"
    if not buffers and topology.chip.name != ROOMY:
        # The compiler can give up before it lays out memory: the same program on a chip with room shows its buffers.
        roomy = dataclasses.replace(topology, chip=chips.CHIPS[ROOMY], shape=(*topology.shape, 1)[:3])
        training = make_training_for(config, roomy)
        lowered = jit_train_step(training).lower(abstract_state(training), abstract_batch(training))
        try:
            buffers = [
                (f"{size / (1 << 30):.2f}GiB", what) for what, size in _read(training, lowered.compile()).biggest
            ]
            where = f"The biggest buffers of a chip, as compiled for {ROOMY}, where there is room:"
        except jax.errors.JaxRuntimeError as error:
            buffers = _named_buffers(str(error))
    listed = [where, *(f"  {size:>9}  {what}" for size, what in buffers)] if buffers else []
    return "\n".join([sentence, *listed])


def _named_buffers(message: str) -> list[tuple[str, str]]:
    """Size and origin of the allocations that an out-of-memory message lists."""
    found = []
    for block in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        size = block.split("\n", 1)[0].strip()
        shape = re.search(r"Shape: (\S+)", block)
        where = re.search(r'op_name="([^"]*)"', block) or re.search(r"Allocation type: (.*)", block)
        found.append((size, " ".join((shape[1].split("{")[0] if shape else "", where[1].strip() if where else ""))))
    return found[:LISTED]
