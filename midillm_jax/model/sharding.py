"""Mesh and placement: nothing else in the project decides where an array lives.

One mesh with named axes, even on one device. A weight says its logical axes where it is declared
(model/llama.py); the table here maps logical axes to mesh axes. Computation is jax.jit with NamedSharding, the
present form of what was pjit.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from midillm_jax.config import MeshConfig
from midillm_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""Mesh axes that batch rows are split over."""

RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ff": "tensor",
    "norm": None,
    "layers": None,
}
"""Mesh axis of each logical axis; None keeps it whole."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a run over all devices (or those given).

    Raises:
        UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or any(size == 0 or size < -1 for size in sizes.values()):
        raise UserError(f"mesh: found {sizes}; expected sizes of 1 or more, at most one of them -1.")
    if open_axes:
        sizes[open_axes[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"mesh: {' x '.join(f'{axis} {size}' for axis, size in sizes.items())} does not use exactly the "
            f"{len(devices)} devices that are here; change --mesh.data, --mesh.fsdp or --mesh.tensor."
        )
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES), devices=devices
    )


def weight_shardings(mesh: Mesh, shapes: Any, logical_axes: Any) -> Any:
    """A NamedSharding for every weight.

    Args:
        shapes: tree of arrays or ShapeDtypeStructs.
        logical_axes: the same tree with tuples of logical axis names (model.llama.Definition.logical_axes).

    Raises:
        UserError: a mesh axis does not divide a dimension; both are named.
    """

    def one(path: Any, leaf: Any, axes: tuple[str, ...]) -> NamedSharding:
        spec = [RULES[axis] for axis in axes]
        for size, logical, axis in zip(leaf.shape, axes, spec, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise UserError(
                    f"mesh: axis {axis!r} has {mesh.shape[axis]} devices, which does not divide dimension "
                    f"{logical!r} ({size}) of {jax.tree_util.keystr(path, simple=True, separator='.')}; "
                    f"choose a --mesh.{axis} that does."
                )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(one, shapes, logical_axes)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shards(mesh: Mesh) -> int:
    """Parts that batch rows are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)
