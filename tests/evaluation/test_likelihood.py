"""Windows, the unigram and bits a note, on small pieces worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.config import DataConfig
from midillm_jax.data.shards import Manifest, Piece, ShardWriter, open_split, pack_piece, write_manifest
from midillm_jax.data.windows import MusicExamples
from midillm_jax.evaluation.likelihood import PieceNats, Unigram, cut, slot_indices, sounding, summarize
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import MAX_ONSET_TICKS, REST, SEPARATOR
from midillm_jax.text.prompt import PROMPT_PREFIX, music_room, prompt_ids
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

END = [SEPARATOR] * 3


def piece_of(onsets: list[int], note: int = 60) -> NoteTable:
    count = len(onsets)
    return NoteTable(
        np.array(onsets, np.int32),
        np.full(count, 50, np.int32),
        np.full(count, note, np.int32),
        np.ones(count, np.uint8),
    )


def test_a_piece_that_fits_is_one_closed_window_with_its_rests() -> None:
    (window,) = cut(piece_of([0, 250]), 10)
    assert window.closed
    expected = [0, 10_050, 11_060, 100, 10_000, REST, 200, 10_000, REST, 250, 10_050, 11_060, *END]
    assert window.amt_ids.tolist() == expected
    assert sounding(window.amt_ids) == 2


def test_no_rest_opens_a_piece_and_a_long_silence_in_front_goes() -> None:
    assert cut(piece_of([250]), 10)[0].amt_ids[0] == 250
    assert cut(piece_of([501]), 10)[0].amt_ids[0] == 0


def test_a_full_window_has_no_room_for_the_end() -> None:
    (window,) = cut(piece_of([0, 10, 20]), 3)
    assert not window.closed
    assert len(window.amt_ids) == 9
    (window,) = cut(piece_of([0, 10, 20]), 4)
    assert window.closed


def test_every_note_of_a_long_piece_is_in_one_window() -> None:
    rng = np.random.default_rng(0)
    onsets = np.cumsum(rng.choice([0, 7, 40, 350, 12_000], size=300, p=[0.3, 0.3, 0.3, 0.08, 0.02]))
    piece = piece_of(onsets.tolist())
    windows = cut(piece, 40)
    assert sum(sounding(window.amt_ids) for window in windows) == 300
    assert [window.closed for window in windows[:-1]] == [False] * (len(windows) - 1)
    passed = 0
    for window in windows:
        music = window.amt_ids[: -3 if window.closed else None].reshape(-1, 3)
        notes = music[music[:, 2] != REST]
        assert len(music) <= 40
        assert music[:, 0].max() < MAX_ONSET_TICKS
        assert music[0, 2] != REST
        # Apart from where it counts from, a window's time is the piece's.
        origin = onsets[passed] - notes[0, 0]
        assert (notes[:, 0] + origin == onsets[passed : passed + len(notes)]).all()
        passed += len(notes)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [PROMPT_PREFIX, "slow waltz in three four", "bright brass over a walking bass"]
    return train_sentencepiece(texts, tmp_path_factory.mktemp("sp") / "t.model", 300)


def test_windows_are_those_of_training(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Token for token what training reads when it begins at the piece's start."""
    onsets = [[30, 30, 90, 400, 1500], [700, 720], list(range(0, 4000, 13))]
    with ShardWriter(tmp_path, "train") as writer:
        for number, each in enumerate(onsets):
            writer.write(pack_piece(Piece(piece_of(each), ("slow waltz",), "s", str(number), "n")), len(each))
    write_manifest(tmp_path, Manifest("pairs", {"train": writer.split}, {"s": len(onsets)}, (), {}, {}))
    data = DataConfig("unused", row_length=192, music_rows=1, text_rows=0, window_start="piece")
    examples = MusicExamples(open_split(tmp_path, "train"), 0, data, tokenizer, text_vocab_size=300, augment=False)
    prompt = prompt_ids(tokenizer, "slow waltz")
    for record, each in enumerate(onsets):
        window = cut(piece_of(each), music_room(prompt, 192))[0]
        mine, theirs = window.segment(prompt, 300), examples(record, np.random.default_rng(0)).segment()
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        assert mine.slot.tolist() == theirs.slot.tolist()


def test_slot_indices_put_rest_and_separator_behind_the_notes() -> None:
    ids = np.array([9_999, 10_999, 27_511, 5, 10_000, REST, *END])
    assert slot_indices(ids).tolist() == [[9_999, 999, 16_511], [5, 0, 16_512], [10_000, 1_000, 16_513]]


def test_unigram_of_three_notes_by_hand() -> None:
    """Counted: onsets 0, 0, 40 and the end; durations 50 three times and the end; one note twice, another, the end."""
    unigram = Unigram()
    unigram.add(np.array([0, 10_050, 11_060, 0, 10_050, 11_064, 40, 10_050, 11_060, *END]))
    # Every count is one more than what was seen, over the seen four and the slot's width.
    onsets, durations, notes = 10_001 + 4, 1_001 + 4, 16_514 + 4
    asked = np.array([0, 10_050, 11_060, 41, 10_051, REST, *END])
    expected = [
        -math.log(3 / onsets) - math.log(1 / onsets) - math.log(2 / onsets),
        -math.log(4 / durations) - math.log(1 / durations) - math.log(2 / durations),
        -math.log(3 / notes) - math.log(1 / notes) - math.log(2 / notes),
    ]
    assert unigram.nats(asked) == pytest.approx(expected, rel=1e-12)


def _piece(name: str, notes: int, *bits: tuple[float, float, float]) -> PieceNats:
    """What a piece cost the model, the unigram and the 5-gram, in bits."""
    model, unigram, ngram = (tuple(value * math.log(2) for value in each) for each in bits)
    return PieceNats(name, f"{name}.mid", notes, model, unigram, ngram)


def test_bits_a_note_are_all_nats_over_the_sounding_notes() -> None:
    pieces = [
        _piece("a", 10, (10, 5, 5), (20, 5, 15), (10, 10, 10)),
        _piece("b", 30, (30, 15, 35), (60, 15, 45), (10, 50, 30)),
    ]
    found = summarize(pieces, seed=0)
    # 100, 160 and 120 bits on 40 notes, not the mean of the pieces' own ratios.
    assert found.model.value == pytest.approx(2.5)
    assert found.unigram.value == pytest.approx(4.0)
    assert found.better_by.value == pytest.approx(1.5)
    assert found.ngram.value == pytest.approx(3.0)
    assert found.better_than_ngram_by.value == pytest.approx(0.5)
    assert found.ngram_by_slot == pytest.approx({"onset": 0.5, "duration": 1.5, "note": 1.0})
    assert found.model_by_slot == pytest.approx({"onset": 1.0, "duration": 0.5, "note": 1.0})
    assert sum(found.unigram_by_slot.values()) == pytest.approx(4.0)


def nats(model_bits: float, number: int) -> PieceNats:
    """A piece of 50 notes, 10 bits each to the unigram and 9 to the 5-gram."""
    model, unigram, ngram = (bits * 50 / 3 for bits in (model_bits, 10.0, 9.0))
    return _piece(str(number), 50, (model,) * 3, (unigram,) * 3, (ngram,) * 3)


def test_the_lines_say_better_only_where_the_interval_does() -> None:
    rng = np.random.default_rng(0)
    clear = summarize([nats(8.5 + rng.normal(0, 0.2), number) for number in range(20)], seed=0)
    assert clear.wins
    assert clear.beats_ngram
    assert clear.lines()[0].startswith("bits a note on 20 unseen pieces: 8.")
    assert "unigram 10.00 [10.00, 10.00]: better by " in clear.lines()[0]
    assert clear.lines()[1].startswith("bits a note of a 5-gram on them: 9.00 [9.00, 9.00]: the model is better by 0.")
    even = summarize([nats(10 + rng.normal(0, 2), number) for number in range(20)], seed=0)
    assert not even.wins
    assert ": not better (" in even.lines()[0]
    between = summarize([nats(9.5, number) for number in range(20)], seed=0)
    assert between.wins
    assert not between.beats_ngram
    assert between.lines()[1].endswith("the model is not better (-0.50 [-0.50, -0.50])")
    worse = summarize([nats(12, number) for number in range(20)], seed=0)
    assert not worse.wins
    few = summarize([nats(5, number) for number in range(3)], seed=0)
    assert not few.wins
    assert not few.beats_ngram
