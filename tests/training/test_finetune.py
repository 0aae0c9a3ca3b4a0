"""Train steps of a finetuning: they begin as the base, and leave it as it is."""

import dataclasses
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
    ModelConfig,
    OptimizerConfig,
)
from midillm_jax.model import finetune, hf_names, sharding
from midillm_jax.training.step import (
    State,
    Training,
    eval_step,
    init_state,
    make_training,
    place,
    train_step,
    weights_of,
)

TEXT, LENGTH = 100, 18
BOTH = FinetuneConfig(lora_rank=4, lora_alpha=8.0)
ADAPTERS = dataclasses.replace(BOTH, music_rows=False)
ROWS = dataclasses.replace(BOTH, lora_rank=0)


@pytest.fixture
def run(tiny_model: ModelConfig) -> Config:
    return Config(
        name="test",
        steps=40,
        model=dataclasses.replace(tiny_model, num_layers=2),
        data=DataConfig(tokenizer="", row_length=LENGTH, music_rows=4, text_rows=4),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
        checkpoint=CheckpointConfig(every_steps=5),
        eval=EvalConfig(every_steps=5, batches=1),
        loss=LossConfig(kind="slot", chunk_tokens=64),
        compute_dtype="float32",
        remat="none",
    )


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Four text rows, then four of prompt and music."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, TEXT, (8, LENGTH)).astype(np.int32)
    slot = np.full((8, LENGTH), -1, np.int8)
    triples = [
        rng.integers(0, 10_000, (4, 5)),
        rng.integers(10_000, 11_000, (4, 5)),
        rng.integers(11_000, 27_512, (4, 5)),
    ]
    tokens[4:, 3:] = TEXT + np.stack(triples, axis=2).reshape(4, 15)
    slot[4:, 3:] = np.arange(15) % 3
    return {
        "tokens": tokens,
        "segment_ids": np.ones((8, LENGTH), np.int32),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (8, 1)),
        "loss_weights": np.where(np.arange(LENGTH) > 0, 1, 0).astype(np.float32) * np.ones((8, 1), np.float32),
        "slot": slot,
    }


def made(config: Config) -> Training:
    return make_training(config, sharding.make_mesh(config.mesh, jax.devices()[:1]))


def begun(training: Training, base: Any) -> State:
    """The state of a finetuning before its first step."""
    config = training.config
    assert config.finetune is not None
    fresh = training.definition.init(jax.random.key(1))
    return init_state(training, finetune.join(fresh, finetune.from_base(base, config.model, config.finetune)))


@pytest.mark.parametrize(
    ("changes", "kind", "dtype"),
    [(BOTH, "slot", "float32"), (BOTH, "full", "bfloat16"), (ADAPTERS, "slot", "bfloat16"), (ROWS, "full", "float32")],
)
def test_the_first_step_sees_the_losses_of_the_base_to_the_bit(
    run: Config, batch: dict[str, np.ndarray], changes: FinetuneConfig, kind: Any, dtype: Any
) -> None:
    run = dataclasses.replace(run, loss=LossConfig(kind=kind, chunk_tokens=64, z_loss=0.01), compute_dtype=dtype)
    whole, tuned = made(run), made(dataclasses.replace(run, finetune=changes))
    base = whole.definition.init(jax.random.key(0))
    placed = place(whole, batch)
    wanted = jax.jit(lambda params: eval_step(whole, params, placed))(base)
    _, sums = jax.jit(lambda state: train_step(tuned, state, placed))(begun(tuned, base))
    assert {name: float(sums[name]) for name in wanted} == {name: float(value) for name, value in wanted.items()}


@pytest.mark.parametrize("changes", [BOTH, ADAPTERS, ROWS], ids=["both", "adapters", "rows"])
def test_steps_learn_and_leave_the_base_to_the_bit(
    run: Config, batch: dict[str, np.ndarray], changes: FinetuneConfig
) -> None:
    training = made(dataclasses.replace(run, finetune=changes))
    base = jax.tree.map(np.asarray, made(run).definition.init(jax.random.key(0)))
    state = begun(training, base)
    placed = place(training, batch)
    step = jax.jit(lambda state: train_step(training, state, placed), donate_argnums=0)
    objectives = []
    for _ in range(20):
        state, sums = step(state)
        objectives.append(float(sums["objective"]))
    assert objectives[-1] < 0.95 * objectives[0]

    after = finetune.merged(jax.tree.map(np.asarray, weights_of(state)), changes)
    changed = {path for path, leaf in hf_names.flat(after).items() if not np.array_equal(leaf, get(base, path))}
    names = {path[-1] for path in changed}
    adapted = set(changes.lora_projections) if changes.lora_rank else set()
    assert names == adapted | ({"embedding"} if changes.music_rows else set())
    assert after["embedding"][:TEXT].tobytes() == base["embedding"][:TEXT].tobytes()


def get(tree: Any, path: tuple[str, ...]) -> Any:
    return hf_names.flat(tree)[path]


def test_what_is_frozen_has_no_moments_and_the_compute_dtype(run: Config) -> None:
    training = made(dataclasses.replace(run, finetune=BOTH, compute_dtype="bfloat16"))
    state = jax.eval_shape(lambda: init_state(training, training.definition.init(jax.random.key(0))))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state["frozen"])} == {"bfloat16"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state["params"])} == {"float32"}
    size = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    # Two moments of each, and counters of steps.
    assert 2 * size <= sum(leaf.size for leaf in jax.tree.leaves(state["optimizer"])) <= 2 * size + 4


@pytest.mark.parametrize(("kind", "tied"), [("slot", True), ("full", False)])
def test_music_rows_get_the_gradient_that_they_get_when_all_trains(
    run: Config, batch: dict[str, np.ndarray], kind: Any, tied: bool
) -> None:
    model = dataclasses.replace(run.model, tie_embeddings=tied)
    run = dataclasses.replace(run, model=model, loss=LossConfig(kind=kind, chunk_tokens=64))
    whole, tuned = made(run), made(dataclasses.replace(run, finetune=ROWS))
    base = whole.definition.init(jax.random.key(0))
    placed = place(whole, batch)
    wanted = jax.jit(jax.grad(lambda params: eval_step(whole, params, placed)["objective"]))(base)
    trained, frozen = finetune.split(finetune.from_base(base, model, ROWS), ROWS)
    found = jax.jit(jax.grad(lambda rows: eval_step(tuned, finetune.join(rows, frozen), placed)["objective"]))(trained)
    for name in ("embedding",) if tied else ("embedding", "head"):
        music = wanted[name][TEXT:]
        assert np.linalg.norm(found[f"music_{name}"] - music) <= 1e-6 * np.linalg.norm(music)


@pytest.mark.slow
def test_accumulating_gives_the_same_step(run: Config, batch: dict[str, np.ndarray]) -> None:
    run = dataclasses.replace(run, finetune=BOTH)
    base = made(dataclasses.replace(run, finetune=None)).definition.init(jax.random.key(0))
    norms, states = [], []
    for parts in (1, 4):
        optimizer = dataclasses.replace(run.optimizer, accumulation_steps=parts)
        training = made(dataclasses.replace(run, optimizer=optimizer))
        placed = place(training, batch)
        state, sums = jax.jit(lambda state, t=training, p=placed: train_step(t, state, p))(begun(training, base))
        norms.append(float(sums["gradient_norm"]))
        states.append(state["params"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(one)
