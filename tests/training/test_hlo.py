"""The reader of optimised programs, on programs whose traffic is known, compiled for TPU slices that are not here."""

import json
import os
import subprocess
import sys

import pytest

from midillm_jax.training import hlo
from midillm_jax.training.chips import environment, parse_topology

PROGRAMS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from midillm_jax.training import hlo

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(devices, ("x",))
MIB = 1 << 20

def compiled(function, shape, dtype, spec, out):
    argument = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
    return hlo.parse(jax.jit(function, out_shardings=NamedSharding(mesh, out)).lower(argument).compile().as_text())

def reduced(x):  # five all-reduces of 4 MiB, in a loop
    def summed(part):
        return jnp.tanh(jax.lax.psum(part, "x"))
    def turn(carry, _):
        return jax.shard_map(summed, mesh=mesh, in_specs=P("x"), out_specs=P("x"))(carry), None
    return jax.lax.scan(turn, x, None, length=5)[0]

def gathered(x):  # one all-gather, 8 MiB when whole
    return x

def added(x):  # 256 MiB read, 256 MiB written on each device
    return x + 1

def sliced(x):  # in ten turns ten slices of 32 MiB are read, each 2 MiB of what is made is written
    return jax.lax.scan(lambda carry, part: (carry, jnp.sum(part, axis=0)), 0.0, x)[1]

two = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2", num_slices=2).devices
over = Mesh(np.array(two).reshape(2, 4), ("slice", "x"))
part = jax.ShapeDtypeStruct((8 * 1024, 1024), jnp.float32, sharding=NamedSharding(over, P(("slice", "x"))))

def between(x):  # in each of three turns every device's 4 MiB are added up over both slices
    def turn(carry, _):
        added = jax.shard_map(
            lambda part: jnp.tanh(jax.lax.psum(part, "slice")),
            mesh=over, in_specs=P(("slice", "x")), out_specs=P(("slice", "x")), check_vma=False,
        )(carry)
        return added, None
    return jax.lax.scan(turn, x, None, length=3)[0]

program = hlo.parse(jax.jit(between, out_shardings=part.sharding).lower(part).compile().as_text())
found = [(each.kind, each.times, each.bytes, each.between_slices) for each in hlo.collectives(program)]
print(json.dumps(["between", found, 0, 0]))

for name, arguments in {
    "reduced": (reduced, (4 * 1024, 1024), jnp.float32, P("x"), P("x")),
    "gathered": (gathered, (2048, 2048), jnp.bfloat16, P("x"), P()),
    "added": (added, (4 * 8192, 8192), jnp.float32, P("x"), P("x")),
    "sliced": (sliced, (10, 16, 4 * 512, 1024), jnp.float32, P(None, None, "x"), P(None, "x")),
}.items():
    program = compiled(*arguments)
    found = [(each.kind, each.times, each.bytes, each.group) for each in hlo.collectives(program)]
    print(json.dumps([name, found, hlo.memory_traffic(program) / MIB, program.unknown_loops]))
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[list[list[object]], float, int]]:
    pytest.importorskip("libtpu", reason="libtpu is not installed")
    settings = os.environ | environment(parse_topology("v5e:2x2"))
    done = subprocess.run([sys.executable, "-c", PROGRAMS], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: tuple(rest) for name, *rest in lines}


def test_a_loop_counts_as_often_as_it_turns(programs: dict) -> None:
    found, _, unknown = programs["reduced"]
    assert found == [["all-reduce", 5, 4 * MIB, [0, 1, 2, 3]]]
    assert unknown == 0


def test_what_goes_between_slices_is_told_apart(programs: dict) -> None:
    (transfer,) = programs["between"][0]
    assert transfer == ["all-reduce", 3, 4 * MIB, True]


def test_what_is_gathered_counts_whole(programs: dict) -> None:
    (found,) = programs["gathered"][0]
    assert found[:3] == ["all-gather", 1, 8 * MIB]
    assert sorted(found[3]) == [0, 1, 2, 3]


def test_memory_traffic_is_what_is_read_and_written(programs: dict) -> None:
    assert programs["added"][1] == pytest.approx(512, rel=0.01)
    assert programs["sliced"][1] == pytest.approx(10 * (32 + 2), rel=0.1)


def test_wire_bytes() -> None:
    """What a ring of four moves: a gather three quarters of the whole, an all-reduce twice that."""
    assert hlo.wire_bytes("all-gather", 400, 4) == 300
    assert hlo.wire_bytes("reduce-scatter", 400, 4) == 300
    assert hlo.wire_bytes("all-reduce", 400, 4) == 600
    assert hlo.wire_bytes("collective-permute", 400, 4) == 400


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,2},{1,3}}, use_global_device_ids=true", (0, 2)),
        ("source_target_pairs={{0,1},{1,0}}", (0, 1)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, channel_id=1", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", (0, 1, 2, 3)),
    ],
)
def test_groups_in_every_way_of_writing_them(written: str, group: tuple[int, ...]) -> None:
    text = f"""
ENTRY %main (p: f32[8]) -> f32[8] {{
  %p = f32[8]{{0}} parameter(0)
  ROOT %r = f32[8]{{0}} all-reduce(%p), {written}
}}"""
    (found,) = hlo.collectives(hlo.parse(text))
    assert found.group == group
    assert found.bytes == 32


def test_a_fused_all_reduce_and_slice_is_a_reduce_scatter() -> None:
    text = """
%all-reduce-scatter.1 (i: f32[8]) -> f32[4] {
  %i = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce(%i), replica_groups={{0,1}}, to_apply=%add
  ROOT %s = f32[4]{0} slice(%r), slice={[0:4]}
}
ENTRY %main (p: f32[8]) -> f32[4] {
  %p = f32[8]{0} parameter(0)
  ROOT %f = f32[4]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}"""
    (found,) = hlo.collectives(hlo.parse(text))
    assert (found.kind, found.times, found.bytes) == ("reduce-scatter", 1, 32)
