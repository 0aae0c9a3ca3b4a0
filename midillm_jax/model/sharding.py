"""Mesh and placement: nothing else in the project decides where an array lives.

One mesh with named axes, even on one device. A weight says its logical axes where it is declared
(model/llama.py); the table here maps logical axes to mesh axes. Computation is jax.jit with NamedSharding, the
present form of what was pjit.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from midillm_jax.config import MeshConfig
from midillm_jax.errors import UserError

AXES = ("slice", "data", "fsdp", "tensor")
BATCH_AXES = ("slice", "data", "fsdp")
"""Mesh axes that batch rows are split over."""

Axes = tuple[str, ...]
"""Logical axes of an array."""
MeshAxes = str | tuple[str, ...] | None

RULES: dict[str, MeshAxes] = {
    # of weights
    "vocab": "tensor",
    "embed": "fsdp",
    "norm": None,
    "layers": None,
    # of weights and activations
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ff": "tensor",
    "rank": None,
    # of activations
    "batch": BATCH_AXES,
    "lookup_batch": ("slice", "data"),
    "length": None,
    "width": None,
}
"""Mesh axis of each logical axis; None keeps it whole."""


def spec(axes: Sequence[str]) -> PartitionSpec:
    """Mesh axes of an array with these logical axes."""
    return PartitionSpec(*(RULES[axis] for axis in axes))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a run over all devices (or those given, which may be of a topology that is only compiled for).

    On TPUs mesh axes follow the torus, the last ones its closest links. Elsewhere devices are taken in their order,
    and ``slice`` cuts them into equal stretches.

    Raises:
        UserError: the axes do not multiply to the number of devices, or ``slice`` is not the number of TPU slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or any(size == 0 or size < -1 for size in sizes.values()) or config.slice < 1:
        raise UserError(f"mesh: found {sizes}; expected sizes of 1 or more, at most one of data, fsdp and tensor -1.")
    if open_axes:
        sizes[open_axes[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"mesh: {' x '.join(f'{axis} {size}' for axis, size in sizes.items())} does not use exactly the "
            f"{len(devices)} devices that are here; change --mesh.slice, --mesh.data, --mesh.fsdp or --mesh.tensor."
        )
    return Mesh(_arrange(devices, tuple(sizes.values())), AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def _arrange(devices: Sequence[jax.Device], shape: tuple[int, ...]) -> np.ndarray:
    """Devices as an array of the mesh's shape, which begins with the number of slices."""
    # Only a TPU's slice_index tells networks apart: GPUs have one too, a number of their host.
    if devices[0].platform != "tpu":
        return mesh_utils.create_device_mesh(shape, devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if shape[0] != slices:
        raise UserError(f"mesh: slice is {shape[0]}, but the devices are of {slices} TPU slice(s); set --mesh.slice.")
    within = (1, *shape[1:])
    # A mesh axis that is no product of torus axes splits one of them: slower links, but a mesh.
    if slices == 1:
        return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1, 1), devices, allow_split_physical_axes=True)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Lays activations on a mesh by their logical axes: what a model needs to know of a mesh."""

    mesh: Mesh

    def constrain(self, x: jax.Array, axes: Sequence[str]) -> jax.Array:
        """x, of logical ``axes``, lying as RULES say."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec(axes)))

    def local(self, function: Callable[..., Any], inputs: tuple[Axes, ...], outputs: Axes | tuple[Axes, ...]) -> Any:
        """``function`` on each device's own part of its arguments, for what the compiler does not split well itself."""
        # Pallas kernels do not say along which axes their results vary, so that there is nothing to check.
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(spec(axes) for axes in inputs),
            out_specs=jax.tree.map(spec, outputs, is_leaf=lambda axes: isinstance(axes[0], str)),
            check_vma=False,
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
        for size, logical in zip(leaf.shape, axes, strict=True):
            axis = RULES[logical]
            if isinstance(axis, str) and size % mesh.shape[axis]:
                raise UserError(
                    f"mesh: axis {axis!r} has {mesh.shape[axis]} devices, which does not divide dimension "
                    f"{logical!r} ({size}) of {jax.tree_util.keystr(path, simple=True, separator='.')}; "
                    f"choose a --mesh.{axis} that does."
                )
        return NamedSharding(mesh, spec(axes))

    return jax.tree_util.tree_map_with_path(one, shapes, logical_axes)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shards(mesh: Mesh) -> int:
    """Parts that batch rows are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)
