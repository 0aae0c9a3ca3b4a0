import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    FinetuneConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
)
from midillm_jax.errors import UserError
from midillm_jax.model import finetune, sharding
from midillm_jax.training.step import Training, eval_step, init_state, make_training, place, state_shardings, train_step

LENGTH = 18


def make_config(model: ModelConfig, **changes: object) -> Config:
    run = Config(
        name="test",
        steps=10,
        model=model,
        data=DataConfig(tokenizer="", row_length=LENGTH, music_rows=8, text_rows=8),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_steps=5),
        eval=EvalConfig(every_steps=5, batches=1),
        loss=LossConfig(kind="slot", chunk_tokens=64),
        compute_dtype="float32",
        remat="none",
    )
    return dataclasses.replace(run, **changes)


def make_batch(text_vocab_size: int) -> dict[str, np.ndarray]:
    """Eight text rows, then eight music rows whose prompts differ in length, so that rows weigh differently."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, text_vocab_size, (16, LENGTH)).astype(np.int32)
    slot = np.full((16, LENGTH), -1, np.int8)
    weights = np.ones((16, LENGTH), np.float32)
    weights[:, 0] = 0
    for row in range(8, 16):
        begin = 3 * (1 + row % 4)
        count = LENGTH - begin
        triples = np.stack(
            [rng.integers(0, 10_000, 6), 10_000 + rng.integers(0, 999, 6), 11_000 + rng.integers(0, 16_512, 6)]
        )
        tokens[row, begin:] = text_vocab_size + triples.T.ravel()[:count]
        slot[row, begin:] = np.arange(count) % 3
        weights[row, :begin] = 0
    return {
        "tokens": tokens,
        "segment_ids": np.ones((16, LENGTH), np.int32),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (16, 1)),
        "loss_weights": weights,
        "slot": slot,
    }


def one_step(training: Training, batch: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    state = init_state(training, training.definition.init(jax.random.key(0)))
    state, sums = jax.jit(lambda state, batch: train_step(training, state, batch))(state, place(training, batch))
    return jax.tree.map(np.asarray, state["params"]), {name: float(value) for name, value in sums.items()}


def single(config: Config) -> Training:
    return make_training(config, sharding.make_mesh(config.mesh, jax.devices()[:1]))


def test_accumulating_gives_the_same_step(tiny_model: ModelConfig) -> None:
    batch = make_batch(tiny_model.text_vocab_size)
    whole_config = make_config(tiny_model)
    parts_config = dataclasses.replace(
        whole_config, optimizer=dataclasses.replace(whole_config.optimizer, accumulation_steps=4)
    )
    whole, sums = one_step(single(whole_config), batch)
    parts, part_sums = one_step(single(parts_config), batch)
    for name, value in sums.items():
        assert part_sums[name] == pytest.approx(value, rel=1e-5), name
    # Adam's first update is nearly the sign of the gradient, so a slip in scale would hide; the norm shows it above.
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(one)


def test_steps_learn_the_batch(tiny_model: ModelConfig) -> None:
    training = single(make_config(tiny_model, steps=40))
    batch = place(training, make_batch(tiny_model.text_vocab_size))
    step = jax.jit(lambda state: train_step(training, state, batch), donate_argnums=0)
    state = init_state(training, training.definition.init(jax.random.key(0)))
    first = float(eval_step(training, state["params"], batch)["objective"])
    for _ in range(30):
        state, _ = step(state)
    assert float(eval_step(training, state["params"], batch)["objective"]) < 0.5 * first


def test_evaluation_sums_equal_those_of_the_step(tiny_model: ModelConfig) -> None:
    training = single(make_config(tiny_model))
    batch = make_batch(tiny_model.text_vocab_size)
    _, sums = one_step(training, batch)
    evaluated = eval_step(training, training.definition.init(jax.random.key(0)), place(training, batch))
    for name, value in evaluated.items():
        assert float(value) == pytest.approx(sums[name], rel=1e-5), name


def test_rows_that_do_not_divide_are_named(tiny_model: ModelConfig) -> None:
    run = make_config(tiny_model)
    run = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, accumulation_steps=3))
    with pytest.raises(UserError, match=r"data\.text_rows: 8 rows do not divide into 3 accumulation"):
        single(run)


def test_splash_is_for_tpus_cudnn_for_gpus_and_dot_for_the_rest(tiny_model: ModelConfig) -> None:
    assert single(make_config(tiny_model)).definition.run.attention == "dot"
    with pytest.raises(UserError, match="splash runs on TPUs, the mesh is of cpu devices"):
        single(make_config(tiny_model, attention="splash"))
    with pytest.raises(UserError, match="cudnn runs on NVIDIA GPUs, the mesh is of cpu devices"):
        single(make_config(tiny_model, attention="cudnn"))


MESHES = [
    MeshConfig(data=8, fsdp=1, tensor=1),
    MeshConfig(data=1, fsdp=8, tensor=1),
    MeshConfig(data=1, fsdp=4, tensor=2),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=2, fsdp=1, tensor=4),
    MeshConfig(data=1, fsdp=2, tensor=4),
    MeshConfig(slice=2, data=2, fsdp=2, tensor=1),
    MeshConfig(slice=2, data=1, fsdp=2, tensor=2),
    MeshConfig(slice=2, data=1, fsdp=1, tensor=4),
]
VARIANTS = [("full", True, "all"), ("slot", True, "all"), ("slot", False, "all")]
"""Kind of loss, whether the head is the embedding, and what trains."""
FINETUNED = [("slot", True, "both"), ("full", False, "adapters")]
TRAINS = {
    "all": None,
    "both": FinetuneConfig(lora_rank=4, lora_alpha=8.0),
    "adapters": FinetuneConfig(lora_rank=4, lora_alpha=8.0, music_rows=False),
}


def mesh_model(*, tie_embeddings: bool) -> ModelConfig:
    return ModelConfig(
        text_vocab_size=100,
        d_model=32,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=8,
        d_ff=64,
        context_length=64,
        rope_theta=5_000.0,
        rms_norm_eps=3e-4,
        tie_embeddings=tie_embeddings,
    )


def on_mesh(mesh: MeshConfig, kind: str, *, tied: bool, trains: str = "all") -> Training:
    """A training on the first devices, its loss with everything switched on."""
    model = mesh_model(tie_embeddings=tied)
    loss = LossConfig(kind=kind, chunk_tokens=64, z_loss=0.01)
    run = make_config(model, mesh=mesh, loss=loss, finetune=TRAINS[trains])
    devices = jax.devices()[: math.prod(dataclasses.astuple(mesh))]
    return make_training(run, sharding.make_mesh(mesh, devices))


def step_on_meshes(variants: list[tuple[str, bool, str]], meshes: list[MeshConfig]) -> None:
    """Run in a process of its own with 8 simulated devices; prints what one step gives on each mesh."""
    results = []
    for kind, tied, trains in variants:
        reference: list[np.ndarray] | None = None
        for mesh in [MeshConfig(data=1, fsdp=1, tensor=1), *meshes]:
            training = on_mesh(mesh, kind, tied=tied, trains=trains)
            batch = make_batch(100)
            # One weight in three is halved: devices add up different weights.
            batch["loss_weights"][:, ::3] *= 0.5
            placed = place(training, batch)
            weights = sharding.weight_shardings(
                training.mesh, training.definition.abstract(), training.definition.logical_axes()
            )
            params = jax.jit(training.definition.init, out_shardings=weights)(jax.random.key(0))
            trained, frozen = finetune.split(params, training.config.finetune)
            # No B is left at zero, behind which A has no gradient.
            trained = jax.tree.map(lambda leaf: leaf + 0.01, trained)

            def loss(trained: Any, training: Training = training, frozen: Any = frozen, placed: Any = placed) -> Any:
                sums = eval_step(training, finetune.join(trained, frozen), placed)
                return sums["objective"] / sums["weight"]

            value, gradient = jax.jit(jax.value_and_grad(loss))(trained)
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
            reference = leaves if reference is None else reference
            worst = max(
                float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(leaves, reference, strict=True)
            )
            shard = params["embedding"].addressable_shards[0].data.shape
            results.append({"loss": float(value), "gradient": worst, "shard": shard})
    print(json.dumps(results))


def compile_step(training: Training) -> Any:
    shardings = state_shardings(training)
    function = jax.jit(
        functools.partial(train_step, training),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(training.mesh)),
    )
    shapes = jax.eval_shape(lambda: init_state(training, training.definition.init(jax.random.key(0))))
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )
    return function.lower(state, place(training, make_batch(100))).compile()


def collectives_of_a_step(kind: str, mesh: MeshConfig) -> None:
    """Prints every collective's name and the shapes it gives, from the compiled step."""
    text = compile_step(on_mesh(mesh, kind, tied=True)).as_text()
    found = re.findall(
        r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text
    )
    print(json.dumps([[name, re.findall(r"\w+\[([\d,]*)\]", shapes)] for shapes, name in found]))


def on_eight_devices(call: str) -> Any:
    """What a function of this file prints as JSON in a process with 8 simulated devices."""
    # Eight devices share what cores there are: on a busy machine they wait for one another longer than XLA's 40 s.
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    code = f"import runpy; here = runpy.run_path({__file__!r}); here[{call.split('(')[0]!r}]({call.split('(', 1)[1]}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_meshes(variants: list[tuple[str, bool, str]], chosen: slice) -> None:
    meshes = MESHES[chosen]
    results = on_eight_devices(f"step_on_meshes({variants}, here['MESHES'][{chosen.start}:{chosen.stop}])")
    assert len(results) == len(variants) * (1 + len(meshes))
    for index in range(0, len(results), 1 + len(meshes)):
        alone = results[index]
        for mesh, found in zip(meshes, results[index + 1 : index + 1 + len(meshes)], strict=True):
            assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5), mesh
            assert found["gradient"] <= 1e-5, mesh
            assert found["shard"] == [alone["shard"][0] // mesh.tensor, alone["shard"][1] // mesh.fsdp]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "slot"])
def test_the_table_is_never_gathered_along_the_vocabulary(kind: str) -> None:
    found = on_eight_devices(f"collectives_of_a_step({kind!r}, here['MESHES'][2])")
    assert found
    rows = mesh_model(tie_embeddings=True).padded_vocab_size
    first = [int(shape.split(",")[0]) for _, shapes in found for shape in shapes if shape]
    # The 33,026 rows of the note slot are the most that the slot head brings together, in columns of one device.
    assert max(first) <= (rows // 2 if kind == "full" else 33_280)


def test_the_new_state_takes_the_place_of_the_old(tiny_model: ModelConfig) -> None:
    training = single(make_config(tiny_model))
    aliases = re.search(r"input_output_alias=\{(.*?\)) \}", compile_step(training).as_text())
    assert aliases
    assert aliases[1].count("alias") == len(jax.tree.leaves(state_shardings(training)))


def test_eight_devices_compute_what_one_does() -> None:
    check_meshes([VARIANTS[1]], slice(7, 8))


@pytest.mark.slow
def test_every_mesh_of_eight_devices_computes_the_same() -> None:
    check_meshes(VARIANTS, slice(0, len(MESHES)))


@pytest.mark.slow
def test_a_finetuning_computes_the_same_on_meshes() -> None:
    check_meshes(FINETUNED, slice(7, 8))
