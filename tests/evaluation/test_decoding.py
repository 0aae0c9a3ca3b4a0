"""Real-time factors of pieces whose times are known."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.evaluation.decoding import by_engine
from midillm_jax.evaluation.generation import Generated, Written
from midillm_jax.evaluation.inputs import Prompt
from midillm_jax.music.midi import NoteTable


def piece(seconds: int, written: Written | None) -> Generated:
    table = NoteTable(np.array([100 * seconds - 50]), np.array([50]), np.array([60]), np.array([90]))
    return Generated(Prompt("", ""), Path("x.mid"), table, True, written)


def test_music_and_time_are_added_up_by_engine() -> None:
    pieces = [piece(30, Written("jax", 2.0)), piece(10, Written("vllm", 0.5)), piece(50, Written("jax", 3.0))]
    jax, vllm = by_engine([*pieces, piece(99, None)])
    assert (jax.engine, jax.pieces, jax.music_seconds, jax.seconds) == ("jax", 2, 80.0, 5.0)
    assert jax.real_time_factor == pytest.approx(16)
    assert vllm.real_time_factor == pytest.approx(20)
    assert jax.line().startswith("16 s of music a second")
    assert by_engine([piece(1, None)]) == ()
