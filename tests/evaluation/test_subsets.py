"""Scores of some pieces are those that these pieces would have by themselves."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.shards import Piece
from midillm_jax.evaluation import music_scores, subsets
from midillm_jax.evaluation.failed import SIGNS, Failed
from midillm_jax.evaluation.further import Further
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.inputs import Prompt
from midillm_jax.evaluation.intervals import wilson
from midillm_jax.evaluation.likelihood import PieceNats, summarize
from midillm_jax.music.midi import NoteTable


def table(seed: int, program: int, notes: int = 60) -> NoteTable:
    rng = np.random.default_rng(seed)
    return NoteTable(
        np.arange(notes, dtype=np.int32) * 50,
        np.full(notes, 40, np.int32),
        (128 * program + rng.integers(50, 80, notes)).astype(np.int32),
        np.full(notes, 90, np.uint8),
    )


def made(number: int, program: int) -> Generated:
    prompt = Prompt(f"A piece for piano without drums, number {number}.", str(number), (0,))
    return Generated(prompt, Path(f"{number:03d}.mid"), table(number, program), True)


@pytest.fixture(scope="module")
def generated() -> list[Generated]:
    """Ten that play the piano as asked, and two that play drums."""
    return [made(number, 0 if number < 10 else 128) for number in range(12)]


@pytest.fixture(scope="module")
def real() -> list[Piece]:
    return [Piece(table(50 + n, 0), ("A piece for piano without drums.",), "s", str(n), str(n)) for n in range(9)]


def test_a_subset_scores_as_if_it_were_alone(generated: list[Generated], real: list[Piece]) -> None:
    kept = [number < 10 for number in range(12)]
    alone = [piece for piece, keep in zip(generated, kept, strict=True) if keep]
    # The first prompt is known to training.
    whole = music_scores.score(generated, generated[1:], real, 0, lambda done, total: None)
    part = music_scores.score(alone, alone[1:], real, 0, lambda done, total: None)
    found = subsets.score(generated, kept, generated[1:], whole, None, 0)
    assert found.generated == 10
    assert found.control == part.control
    assert found.quality == part.quality
    assert (found.drums, found.instruments) == music_scores.symbolic_scores(alone[1:], 0)
    assert found.control["drums"].share.value == 1
    everything = subsets.score(generated, [True] * 12, generated[1:], whole, None, 0)
    assert everything.control == whole.control
    assert everything.control["drums"].share.value == pytest.approx(9 / 11)


def test_the_page_has_both_beside_each_other(generated: list[Generated], real: list[Piece]) -> None:
    whole = music_scores.score(generated, generated, real, 0, lambda done, total: None)
    bits = summarize([PieceNats(str(n), "", 10, (30.0,) * 3, (40.0,) * 3, (35.0,) * 3) for n in range(9)], 0)
    everything = subsets.score(generated, [True] * 12, generated, whole, bits, 0)
    sound = subsets.score(generated, [n < 10 for n in range(12)], generated, whole, None, 0)
    further = Further(
        text=None,
        failed=Failed(
            signs={name: wilson(2, 12) for name in SIGNS},
            real={name: wilson(0, 9) for name in SIGNS},
            of_piece=((),) * 10 + (("looping",),) * 2,
            without=sound,
        ),
        whole=everything,
        duplicates=0,
        new=None,
    )
    failed, near = further.sections()
    assert '<th class="number">all 12</th><th class="number">10 of them</th>' in failed
    assert '<td>drums</td><td class="number">83 % [58, 100]</td><td class="number">100 % [100, 100]</td>' in failed
    assert "rejected 17 % [5, 45]; of the real ones 0 % [0, 30] are rejected" in failed
    assert "0 of the held-out pieces share 40 % or more" in near
    assert further.lines() == ("failed music: 17 % [5, 45] of 12 pieces are rejected",)
    document = further.to_json()
    assert document["failed"]["shares"]["looping"]["value"] == pytest.approx(1 / 6)
    assert document["failed"]["real"]["looping"]["value"] == 0
    assert document["failed"]["without"]["control"]["outputs"] == 10
    assert document["failed"]["without"]["bits_per_note"] is None, "held-out pieces have no part in it"
    assert document["near_duplicates"] == {"held_out": 0, "threshold": 0.4, "without": None}
