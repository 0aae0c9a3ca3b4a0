import dataclasses

import jax
import pytest

from midillm_jax.config import MeshConfig, ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import sharding
from midillm_jax.model.llama import INFERENCE, Definition


def test_one_device_gets_a_mesh_with_all_axes() -> None:
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"slice": 1, "data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MeshConfig(data=1, fsdp=2, tensor=1), "does not use exactly the 1 devices"),
        (MeshConfig(data=-1, fsdp=-1), "at most one of data, fsdp and tensor -1"),
        (MeshConfig(data=0), "sizes of 1 or more"),
        (MeshConfig(slice=-1, fsdp=1), "sizes of 1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_is_an_error(config: MeshConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        sharding.make_mesh(config, jax.devices()[:1])


def test_a_dimension_that_does_not_divide_is_named(tiny_model: ModelConfig) -> None:
    definition = Definition(tiny_model, INFERENCE)
    mesh = jax.sharding.AbstractMesh((1, 1, 1, 4), sharding.AXES)
    with pytest.raises(UserError, match=r"'tensor' has 4 devices.* 'kv_heads' \(2\) of blocks.attention.key"):
        sharding.weight_shardings(mesh, definition.abstract(), definition.logical_axes())


def test_the_vocabulary_is_sharded_too(tiny_model: ModelConfig) -> None:
    config = dataclasses.replace(tiny_model, num_kv_heads=6)
    definition = Definition(config, INFERENCE)
    mesh = jax.sharding.AbstractMesh((1, 1, 4, 2), sharding.AXES)
    placed = sharding.weight_shardings(mesh, definition.abstract(), definition.logical_axes())
    assert placed["embedding"].shard_shape((config.padded_vocab_size, 48)) == (config.padded_vocab_size // 2, 12)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device as mesh_utils sees it: v5e chips of 2 x 4, by slice."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0
    process_index: int = 0


def chips(slices: int) -> list[Chip]:
    places = [(x, y, 0) for y in range(4) for x in range(2)]
    return [Chip(8 * part + index, at, part) for part in range(slices) for index, at in enumerate(places)]


def test_the_slice_axis_follows_the_slices() -> None:
    # Devices that the runtime lists in another order still come out slice by slice.
    mixed = sorted(chips(2), key=lambda chip: (chip.id % 8, chip.id))
    arranged = sharding._arrange(mixed, (2, 1, 4, 2))
    assert arranged.shape == (2, 1, 4, 2)
    for part in range(2):
        assert {chip.slice_index for chip in arranged[part].flat} == {part}


@pytest.mark.parametrize(("there", "asked"), [(1, 2), (2, 1)])
def test_slices_that_are_not_there_are_an_error(there: int, asked: int) -> None:
    with pytest.raises(UserError, match=f"slice is {asked}, but the devices are of {there} TPU slice"):
        sharding.make_mesh(MeshConfig(slice=asked), chips(there))
