"""Hand-made programs and figures, whose times, MFU and hours can be worked out on paper."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from midillm_jax.config import CheckpointConfig, Config, DataConfig, EvalConfig, ModelConfig, OptimizerConfig
from midillm_jax.training import hlo
from midillm_jax.training.chips import Topology, parse_topology
from midillm_jax.training.compile import Compiled
from midillm_jax.training.estimate import (
    Estimate,
    as_dict,
    collectives_by_kind,
    does_not_fit,
    estimate,
    network_seconds,
    show,
)
from midillm_jax.training.flops import StepFlops, step_flops

GIB = 1 << 30

# Device 2 y + x of a v5e:2x4 stands at (x, y). One link of a v5e moves 45 GB a second one way; short axes are lines.
PROGRAM = """
%body (i: f32[8]) -> f32[8] {
  %i = f32[8]{0} parameter(0)
  ROOT %r = f32[11250000]{0} all-reduce(%i), replica_groups={{0,1},{2,3},{4,5},{6,7}}
}
%condition (j: f32[8]) -> pred[] {
  %j = f32[8]{0} parameter(0)
  ROOT %t = pred[] constant(true)
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %g = f32[225000000]{0} all-gather(%p), replica_groups=[1,8]<=[8]
  %m = f32[11250000]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  ROOT %w = f32[8]{0} while(%p), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}"""

BETWEEN_SLICES = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = (f32[7812500]{0}, u32[]) recv(%p), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
}"""


def make_compiled(text: str = PROGRAM, *, slices: int = 1, attention: str = "splash", **changes: Any) -> Compiled:
    """A program for v5e:2x4, without a compiler."""
    places = [SimpleNamespace(coords=(x, y, 0)) for _ in range(slices) for y in range(4) for x in range(2)]
    mesh = SimpleNamespace(
        devices=np.array(places), size=len(places), shape={"slice": slices, "data": 1, "fsdp": 8, "tensor": 1}
    )
    training: Any = SimpleNamespace(
        mesh=mesh, definition=SimpleNamespace(run=SimpleNamespace(attention=attention, remat="full"))
    )
    made = Compiled(
        training=training,
        argument_bytes=2 * GIB,
        donated_bytes=1 * GIB,
        temporary_bytes=3 * GIB,
        peak_bytes=4 * GIB,
        biggest=(("f32[8] somewhere", GIB // 2),),
        collectives=tuple(hlo.collectives(hlo.parse(text))),
        memory_traffic_bytes=81_900_000_000,
        unknown_loops=0,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def config(tiny_model: ModelConfig) -> Config:
    return Config(
        name="test",
        steps=7_200,
        model=tiny_model,
        data=DataConfig(tokenizer="", row_length=512, music_rows=10, text_rows=6),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_steps=5),
        eval=EvalConfig(every_steps=5, batches=1),
        remat="full",
    )


def make_estimate(config: Config, *, memory_seconds: float = 0.2, topology: Topology | None = None) -> Estimate:
    """Half a second of arithmetic on 8 chips of 197 TFLOP/s, of whose 788 TFLOPs the model needs half."""
    return Estimate(
        config=config,
        topology=topology or parse_topology("v5e:2x4"),
        compiled=make_compiled(),
        flops=StepFlops(0.0, 0.0, 0.0, 0.0, model=394e12, hardware=788e12),
        compute_seconds=0.5,
        memory_seconds=memory_seconds,
        ici_seconds=0.1,
        dcn_seconds=0.0,
    )


def test_collectives_take_the_links_of_the_axes_on_which_their_groups_lie() -> None:
    # 7/8 of 900 MB over two links; three times 45 MB there and back over one, half of it kept; 45 MB over one.
    gathered, reduced, passed_on = 7 / 8 * 900e6 / 90e9, 3 * 2 * 45e6 / 2 / 45e9, 45e6 / 45e9
    ici, dcn = network_seconds(make_compiled(), parse_topology("v5e:2x4"))
    assert (gathered, reduced, passed_on) == pytest.approx((8.75e-3, 3e-3, 1e-3))
    assert (ici, dcn) == (pytest.approx(12.75e-3), 0.0)


def test_slices_exchange_over_the_data_centre_network() -> None:
    # 31.25 MB among two, there and back, half of it kept, at 3.125 GB a second and chip.
    compiled = make_compiled(BETWEEN_SLICES, slices=2)
    assert network_seconds(compiled, parse_topology("2xv5e:2x4")) == (0.0, pytest.approx(10e-3))
    assert collectives_by_kind(compiled) == {"all-reduce between slices": (1, pytest.approx(31.25e6))}


def test_collectives_are_added_up_by_kind() -> None:
    assert collectives_by_kind(make_compiled()) == {
        "all-gather": (1, pytest.approx(787.5e6)),
        "all-reduce": (3, pytest.approx(135e6)),
        "collective-permute": (1, pytest.approx(45e6)),
    }


def test_the_three_times_are_work_by_the_chips_peaks(config: Config) -> None:
    found = estimate(config, parse_topology("v5e:2x4"), make_compiled())
    assert found.compute_seconds == pytest.approx(step_flops(config).hardware / (8 * 197e12))
    assert found.memory_seconds == pytest.approx(0.1)  # 81.9 GB at 819 GB a second
    assert found.ici_seconds == pytest.approx(12.75e-3)
    assert (found.bound, found.step_seconds) == ("memory", found.memory_seconds)


def test_flops_are_those_of_the_attention_that_was_compiled(config: Config) -> None:
    pod = parse_topology("v5e:2x4")
    splash, dot = (estimate(config, pod, make_compiled(attention=kind)).flops for kind in ("splash", "dot"))
    assert (splash, dot) == (step_flops(config), step_flops(config, splash=False))
    assert splash.hardware != dot.hardware


def test_mfu_hours_and_speed_are_those_worked_out_by_hand(config: Config) -> None:
    found = make_estimate(config)
    assert (found.bound, found.step_seconds) == ("arithmetic", 0.5)
    assert found.mfu == pytest.approx(0.5)
    assert (found.step_tokens, found.rows_a_chip) == (8_192, 2)
    assert found.hours == pytest.approx(1.0)
    assert found.total_bytes == 5 * GIB
    told = as_dict(found, 1.5)
    assert told["chip_hours"] == pytest.approx(8.0)
    assert told["cost"] == pytest.approx(12.0)
    assert told["tokens_per_second"] == pytest.approx(16_384)
    assert told["tokens"] == 7_200 * 8_192
    assert told["expected_share"] == (0.5, 0.85)
    assert told["seconds"] == {"arithmetic": 0.5, "memory": 0.2, "ici": 0.1, "dcn": 0.0, "step": 0.5}


def test_a_chip_of_two_devices_holds_what_both_hold(config: Config) -> None:
    found = make_estimate(config, topology=parse_topology("tpu7x:2x2x1"))
    assert found.total_bytes == 10 * GIB
    assert found.fits


def rows_of(printed: str) -> dict[str, str]:
    """What stands beside each name, lines that were folded put together."""
    rows: dict[str, str] = {}
    name = ""
    for line in printed.splitlines():
        head, _, rest = line.partition("  ")
        name = head or name
        rows[name] = f"{rows.get(name, '')} {rest.strip()}".strip()
    return rows


def test_the_table_shows_these_figures(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    show(make_estimate(config), 1.5)
    rows = rows_of(capsys.readouterr().out)
    assert rows["slice"] == "v5e:2x4: 8 chips on 1 host(s), mesh slice 1 x data 1 x fsdp 8 x tensor 1"
    assert rows["batch"] == "2 rows of 512 tokens a chip; 8,192 tokens a step"
    assert rows["memory of a chip"] == "arguments 2.00 (donated 1.00), temporaries 3.00; 5.00 of 16.00 GiB"
    assert rows["FLOPs a step"] == "model 3.940e+14, with recomputation 7.880e+14"
    assert rows["all-gather"] == "1 a step, 0.79 GB received by each chip"
    assert rows["all-reduce"] == "3 a step, 0.14 GB received by each chip"
    assert rows["roofline"] == (
        "500 ms a step, bound by arithmetic: the longest of arithmetic 500 ms, memory 200 ms, network 100 ms ICI"
    )
    assert rows["MFU at the roofline"] == "50.0%"
    assert rows["tokens a second"] == (
        "16,384; expect 0.50 to 0.85 of it, as published runs bound by arithmetic (docs/scaling.md)"
    )
    assert rows["the whole run"] == "7,200 steps, 0.06 B tokens"
    assert rows["hours"] == "1; expect 1.2 to 2"
    assert rows["chip-hours"] == "8; expect 9.4 to 16"
    assert rows["cost"] == "12 at 1.5 a chip and hour; expect 14 to 24"


def test_nothing_is_promised_where_memory_is_the_bound(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    found = make_estimate(dataclasses.replace(config, steps=90), memory_seconds=2.0)
    assert found.mfu == pytest.approx(0.125)
    assert as_dict(found, None)["expected_share"] is None
    show(found, None)
    rows = rows_of(capsys.readouterr().out)
    assert rows["tokens a second"] == (
        "4,096; how much of it is reached is not known where memory is the bound (docs/scaling.md)"
    )
    assert (rows["hours"], rows["chip-hours"]) == ("0.05", "0.4")
    assert "expect" not in "".join(rows.values())


def test_what_does_not_fit_is_named(config: Config) -> None:
    found = dataclasses.replace(make_estimate(config), compiled=make_compiled(temporary_bytes=15 * GIB))
    assert not found.fits
    told = does_not_fit(found)
    assert "17.00 GiB of 16.00" in told
    assert "0.50 GiB  f32[8] somewhere" in told
