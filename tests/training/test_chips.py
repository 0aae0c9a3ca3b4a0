import pytest

from midillm_jax.errors import UserError
from midillm_jax.training.chips import CHIPS, environment, parse_topology


def test_a_topology_is_chip_shape_and_slices() -> None:
    pod = parse_topology("v5e:8x8")
    assert (pod.chip.name, pod.shape, pod.slices, pod.chips, pod.hosts, pod.name) == (
        "v5e", (8, 8), 1, 64, 16, "v5e:8x8",
    )  # fmt: skip
    pair = parse_topology("2xv6e:16x16")
    assert (pair.chips, pair.slices, pair.hosts, pair.name) == (512, 2, 128, "2xv6e:16x16")
    assert parse_topology("v5p:8x8x16").chips == 1024


@pytest.mark.parametrize(
    ("text", "bounds", "hosts"),
    [
        ("v5e:1x1", (1, 1, 1), 1),
        ("v5e:2x2", (2, 2, 1), 1),
        ("v5e:2x4", (2, 4, 1), 1),
        ("v5e:4x4", (2, 2, 1), 4),
        ("v6e:2x4", (2, 4, 1), 1),
        ("v6e:16x16", (2, 2, 1), 64),
        ("2xv6e:2x4", (2, 4, 1), 2),
        ("v4:2x2x1", (2, 2, 1), 1),
        ("v5p:2x2x2", (2, 2, 1), 2),
        ("tpu7x:4x4x4", (2, 2, 1), 16),
    ],
)
def test_machines_have_four_chips_where_a_slice_has_several(text: str, bounds: tuple[int, ...], hosts: int) -> None:
    """As in MaxText's accelerator_to_spec_map.py; eight chips are one machine on v5e and v6e only."""
    pod = parse_topology(text)
    assert (pod.host_bounds, pod.hosts) == (bounds, hosts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v9:2x2", ["v4", "v5e", "v5p", "v6e", "tpu7x"]),
        ("v5e", ["v5e:2x4", "2xv5e:4x4"]),
        ("0xv5e:4x4", ["2xv5e:4x4"]),
        ("v5e:3x3", ["no such slice", "2x4", "16x16"]),
        ("v5e:4x4x4", ["no such slice", "16x16"]),
        ("v5p:3x4x4", ["no such slice", "4x4x4", "multiples of 4"]),
    ],
)
def test_an_unknown_topology_lists_the_known_ones(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_topology(text)
    for word in [text, *words]:
        assert word in str(caught.value)


def test_axes_are_rings_where_the_pod_closes_them() -> None:
    assert [parse_topology("v5e:8x16").links(axis) for axis in (0, 1)] == [1, 2]
    assert [parse_topology("v5p:2x4x4").links(axis) for axis in (0, 1, 2)] == [1, 2, 2]
    assert parse_topology("v5e:1x1").links(0) == 0


def test_accelerator_types_are_googles() -> None:
    """v5litepod-8 counts chips, v5p-16 cores: cloud.google.com/tpu/docs."""
    for text, name in (
        ("v5e:2x4", "v5litepod-8"),
        ("v5p:2x2x2", "v5p-16"),
        ("v4:2x2x4", "v4-32"),
        ("v6e:4x4", "v6e-16"),
    ):
        assert environment(parse_topology(text))["TPU_ACCELERATOR_TYPE"] == name


def test_chips_are_in_the_order_of_their_generations() -> None:
    """A slip of a power of ten would show: arithmetic by memory bandwidth is 160 to 600 FLOPs a byte on all of them."""
    for chip in CHIPS.values():
        assert 160 < chip.flops / chip.hbm_bandwidth < 600, chip.name
        assert 10 < chip.hbm_bandwidth / chip.ici_link_bandwidth < 100, chip.name
        assert 5 < chip.ici_link_bandwidth / chip.dcn_bandwidth < 20, chip.name
