"""A run's config that tests of the room share."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Source,
)


@pytest.fixture
def run(run_in: Callable[[Path], Config], tmp_path: Path) -> Config:
    """Six steps of text and captioned music, saved every second one."""
    return run_in(tmp_path / "run")


@pytest.fixture(scope="session")
def run_in(corpus: Path, tiny_model: ModelConfig) -> Callable[[Path], Config]:
    """The same run in a folder of one's own."""
    return lambda folder: Config(
        name="test",
        run_dir=str(folder),
        steps=6,
        model=dataclasses.replace(tiny_model, text_vocab_size=600, num_layers=2),
        data=DataConfig(
            tokenizer=str(corpus / "tokenizer.model"),
            row_length=192,
            music_rows=2,
            text_rows=2,
            music=(Source(str(corpus / "pairs")),),
            text=(Source(str(corpus / "text")),),
            streams=2,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        checkpoint=CheckpointConfig(every_steps=2),
        eval=EvalConfig(every_steps=3, batches=1),
        loss=LossConfig(kind="slot"),
        mesh=MeshConfig(),
        compute_dtype="float32",
        remat="none",
        log_every_steps=2,
    )
