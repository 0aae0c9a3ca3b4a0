"""Matches of words and music, on vectors and probabilities that are known."""

from pathlib import Path

import numpy as np
import pytest

from midillm_jax.evaluation import text_match
from midillm_jax.evaluation.musicnn import Musicnn
from midillm_jax.evaluation.networks import Heard
from tests.evaluation.tiny_networks import tagger

TAGS = ["rock", "jazz", "female vocalists", "Hip-Hop", "classic rock", "rnb", "60s"]


def test_tags_are_read_as_whole_words_the_longest_first() -> None:
    def named(text: str) -> list[str]:
        return [TAGS[place] for place in text_match.named_tags(text, TAGS)]

    assert named("A Rock song, rocking and jazzy") == ["rock"]
    assert named("classic rock of the 60s") == ["classic rock", "60s"]
    assert named("hip hop, R&B and hip-hop") == ["Hip-Hop", "rnb"]
    assert named("jazz; female  vocalists") == ["jazz", "female vocalists"]
    assert named("nothing of it") == []


def test_own_words_are_held_against_shuffled_ones() -> None:
    """Ten where they fit, nothing where not: over all orders a tenth of that."""
    match = text_match.judged("x", 10 * np.eye(10), seed=0)
    assert match is not None
    assert (match.prompts, match.own.value, match.shuffled.value, match.better_by.value) == (10, 10, 1, 9)
    assert match.wins
    deaf = text_match.judged("x", np.full((10, 10), 3.0), seed=0)
    assert deaf is not None
    assert not deaf.wins


def test_prompts_that_say_nothing_are_left_out() -> None:
    scores = np.arange(9.0).reshape(3, 3)
    scores[:, 1] = np.nan
    match = text_match.judged("x", scores, seed=0)
    assert match is not None
    assert match.prompts == 2
    assert match.own.value == (0 + 8) / 2
    assert match.shuffled.value == (0 + 2 + 6 + 8) / 4
    assert text_match.judged("x", np.full((2, 2), np.nan), seed=0) is None


def test_tags_that_a_prompt_names_are_looked_up(tmp_path: Path) -> None:
    network = Musicnn(tagger(tmp_path / "n.onnx", ["rock", "jazz", "slow"]))
    # A chunk that counts three quarters, and one that counts a quarter.
    rock = Heard(np.zeros((2, 1)), np.array([0.75, 0.25]), np.array([[0.8, 0.1, 0.0], [0.4, 0.1, 0.4]]))
    jazz = Heard(np.zeros((1, 1)), np.ones(1), np.array([[0.1, 0.6, 0.3]]))
    shares = text_match.tag_shares(network, [rock, jazz], ["rock music", "slow jazz"])
    np.testing.assert_allclose(shares, [[70, 10], [10, 45]])
    (match,) = text_match.matches(network, [rock, jazz], ["rock music", "slow jazz"], [jazz], ["jazz"], seed=0)
    assert match.own.value == pytest.approx((70 + 45) / 2)
    assert match.shuffled.value == pytest.approx((70 + 10 + 10 + 45) / 4)
    assert match.real is not None
    assert match.real.value == pytest.approx(60)
    assert dict(match.of_prompts) == pytest.approx({"rock music": 70, "slow jazz": 45})


class Words:
    """Stands for CLAP where vectors are to be known: texts are their own vectors."""

    chunk_seconds = 10

    def read(self, texts: list[str]) -> np.ndarray:
        return np.array([[float(text == "a"), float(text == "b")] for text in texts])


def test_clap_keeps_all_chunks_and_amaais_rule_drops_what_does_not_fit() -> None:
    chunks = np.array([[1, 0], [0, 1], [0.005, 1], [0, 1]])
    pieces = [Heard(chunks, np.full(4, 0.25))]
    clap = Words()
    kept = text_match.fixed_chunks(clap, pieces, ["a", "b"])  # type: ignore[arg-type]
    np.testing.assert_allclose(kept, [[100 * 1.005 / 4, 75]])
    # Of 20 s the first 10 s: chunks 1 and 3, of which one fits each.
    dropped = text_match.amaai(clap, pieces, ["a", "b", "c"])  # type: ignore[arg-type]
    np.testing.assert_allclose(dropped, [[100, 100, 0]])
