"""The layout of rows, on small ids worked out by hand."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.text.prompt import PROMPT_PREFIX, lead, music_segment, prompt_ids, text_segment
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

TEXT = 1000
TRIPLES = np.array([0, 10_050, 11_060, 25, 10_100, 27_512], np.int32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [PROMPT_PREFIX, "slow waltz in three four", "bright brass over a walking bass"]
    return train_sentencepiece(texts, tmp_path_factory.mktemp("sp") / "t.model", 300)


@dataclasses.dataclass(frozen=True)
class Letters:
    """A tokenizer small enough to count by hand: one id a character."""

    vocab_size: int = TEXT
    bos_id: int = 998
    eos_id: int = 999
    fingerprint: str = "letters"
    files: tuple[Path, ...] = ()

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(i) for i in ids)


def test_prompt_is_prefix_prompt_and_one_space() -> None:
    ids = prompt_ids(Letters(), "a waltz")
    assert ids[0] == 998
    assert Letters().decode(ids[1:]) == (
        "You are a world-class composer. Please compose some music according to the following description: a waltz "
    )
    assert prompt_ids(Letters(), None) == [998]
    assert prompt_ids(Letters(), "") != [998]


def test_prompt_of_a_real_tokenizer(tokenizer: Tokenizer) -> None:
    ids = prompt_ids(tokenizer, "slow waltz")
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids) == PROMPT_PREFIX + "slow waltz "


def test_music_segment_closed() -> None:
    segment = music_segment([998, 5, 6], TRIPLES, text_vocab_size=TEXT, closed=True, anticipated=False)
    assert segment.tokens.tolist() == [
        *(998, 5, 6, 1000 + 55_026),
        *(1000, 11_050, 12_060, 1025, 11_100, 28_512),
        *[1000 + 55_025] * 3,
    ]
    assert segment.slot.tolist() == [-1] * 4 + [0, 1, 2] * 3
    assert segment.loss_weights.tolist() == [0] * 4 + [1] * 9
    assert (segment.tokens.dtype, segment.loss_weights.dtype, segment.slot.dtype) == (np.int32, np.float32, np.int8)
    assert len(segment) == 13


def test_music_segment_cut_by_length_with_controls() -> None:
    controls = np.array([27_513 + 40, 37_513 + 7, 38_513 + 60], np.int32)
    segment = music_segment([998], controls, text_vocab_size=TEXT, closed=False, anticipated=True)
    assert segment.tokens.tolist() == [998, 1000 + 55_027, 1000 + 27_553, 1000 + 37_520, 1000 + 38_573]
    assert segment.slot.tolist() == [-1, -1, 0, 1, 2]
    assert segment.loss_weights.tolist() == [0, 0, 1, 1, 1]


def test_music_segment_of_no_music_is_the_engines_prompt() -> None:
    segment = music_segment([998, 7], np.array([], np.int32), text_vocab_size=TEXT, closed=False, anticipated=False)
    assert segment.tokens.tolist() == [998, 7, 1000 + 55_026]
    assert segment.slot.tolist() == [-1, -1, -1]
    assert not segment.loss_weights.any()


def test_a_prompt_can_be_a_target_but_begin_of_text_and_flag_are_given() -> None:
    options = {"text_vocab_size": TEXT, "closed": False, "anticipated": False}
    plain = music_segment([998, 7, 8], TRIPLES, **options)
    weighed = music_segment([998, 7, 8], TRIPLES, prompt_weight=0.5, **options)
    assert weighed.loss_weights.tolist() == [0, 0.5, 0.5, 0] + [1] * 6
    assert plain.loss_weights.tolist() == [0] * 4 + [1] * 6
    assert weighed.tokens.tolist() == plain.tokens.tolist()


def test_music_segment_refuses_half_triples() -> None:
    with pytest.raises(ValueError, match="4 music ids are not whole"):
        music_segment([998], TRIPLES[:4], text_vocab_size=TEXT, closed=False, anticipated=False)


def test_text_segment_ends_with_a_target() -> None:
    segment = text_segment(np.array([3, 4, 5]), Letters())
    assert segment.tokens.tolist() == [998, 3, 4, 5, 999]
    assert segment.loss_weights.tolist() == [0, 1, 1, 1, 1]
    assert segment.slot.tolist() == [-1] * 5


@pytest.mark.parametrize("start", [0, 1, 2, 511])
@pytest.mark.parametrize("prompt_length", [1, 2, 3, 27])
def test_lead_puts_onsets_at_index_0_mod_3(start: int, prompt_length: int) -> None:
    segment = music_segment([7] * prompt_length, TRIPLES, text_vocab_size=TEXT, closed=True, anticipated=False)
    padding = lead(segment, start)
    assert padding in (0, 1, 2)
    onsets = start + padding + np.flatnonzero(segment.slot == 0)
    assert (onsets % 3 == 0).all()
    assert lead(prompt_length + 1, start) == padding


def test_lead_of_text_is_nothing() -> None:
    assert lead(text_segment([3, 4], Letters()), 1) == 0
