"""What one visit to a record shows: which notes, which caption, which controls, and how it may be cut."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.config import AnticipationConfig, DataConfig
from midillm_jax.data.shards import (
    Manifest,
    Piece,
    ShardWriter,
    TextRecord,
    TokenizerId,
    open_split,
    pack_piece,
    pack_text,
    write_manifest,
)
from midillm_jax.data.windows import (
    LEAST_TRIPLES,
    MusicExamples,
    MusicStretch,
    TextExamples,
    TextStretch,
    _window,
    record_id,
    split_record_id,
)
from midillm_jax.music import grammar_check
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import ANTICIPATE, AUTOREGRESS, CONTROL_OFFSET, NOTE_OFFSET, REST, SEPARATOR
from midillm_jax.text.prompt import PROMPT_PREFIX, Segment, lead, prompt_ids
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

TEXT_VOCAB = 400
ROW = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [f"{PROMPT_PREFIX} A song with piano, bass and drums, number {i}." for i in range(300)]
    return train_sentencepiece(texts, tmp_path_factory.mktemp("tokenizer") / "t.model", TEXT_VOCAB)


def music(onsets: np.ndarray, programs: tuple[int, ...] = (0, 33, 128), captions: tuple[str, ...] = ()) -> Piece:
    count = len(onsets)
    rng = np.random.default_rng(count)
    notes = rng.choice(programs, count) * 128 + rng.integers(30, 90, count)
    table = NoteTable(
        onsets.astype(np.int32),
        rng.integers(0, 1000, count).astype(np.int32),
        notes.astype(np.int32),
        np.full(count, 80, np.uint8),
    )
    return Piece(table, captions, "test", "id", f"{count} notes.mid")


class Drawer:
    """Windows of one piece."""

    def __init__(self, folder: Path, piece: Piece, tokenizer: Tokenizer) -> None:
        self.piece = piece
        self.folder = folder
        self.tokenizer = tokenizer
        with ShardWriter(folder, "train") as writer:
            writer.write(pack_piece(piece), len(piece.notes))
        write_manifest(folder, Manifest("pairs", {"train": writer.split}, {"test": 1}, (), {}, {}))

    def examples(self, *, augment: bool = True, row_length: int = ROW, **data: object) -> MusicExamples:
        config = DataConfig(tokenizer="", row_length=row_length, music_rows=1, text_rows=0, **data)  # type: ignore[arg-type]
        reader = open_split(self.folder, "train")
        return MusicExamples(reader, 3, config, self.tokenizer, text_vocab_size=TEXT_VOCAB, augment=augment)

    def draw(self, times: int = 1, *, augment: bool = True, **data: object) -> list[MusicStretch]:
        examples = self.examples(augment=augment, **data)
        return [examples(0, np.random.default_rng(seed)) for seed in range(times)]


def music_ids(segment: Segment) -> np.ndarray:
    """amt_ids after the flag."""
    return segment.tokens[segment.slot >= 0] - TEXT_VOCAB


def flag(segment: Segment) -> int:
    return int(segment.tokens[np.flatnonzero(segment.slot >= 0)[0] - 1]) - TEXT_VOCAB


def note_rows(table: NoteTable, origin: int = 0) -> list[tuple[int, int, int]]:
    return list(zip((table.onsets - origin).tolist(), table.durations.tolist(), table.notes.tolist(), strict=True))


def find(piece: Piece, ids: np.ndarray) -> tuple[int, int]:
    """Where the notes of a window without controls stand in the piece: first, one past last."""
    heard = note_rows(decode_notes(ids))
    for first in range(len(piece.notes) - len(heard) + 1):
        for origin in {0, int(piece.notes.onsets[first])}:
            part = NoteTable(
                *(getattr(piece.notes, name)[first : first + len(heard)] for name in ("onsets", "durations", "notes")),
                piece.notes.velocities,
            )
            if note_rows(part, origin) == heard:
                return first, first + len(heard)
    raise AssertionError("the window's notes do not follow each other in the piece")


def test_a_piece_that_fits_is_shown_whole_and_closed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.array([40, 40, 130, 231, 900]))
    (stretch,) = Drawer(tmp_path, piece, tokenizer).draw()
    segment = stretch.segment()
    ids = music_ids(segment)
    assert segment.tokens[0] == tokenizer.bos_id
    assert flag(segment) == AUTOREGRESS
    assert len(segment) == 2 + len(ids)
    # 130 -> 231 and 231 -> 900 are more than 100 ticks apart; the opening silence is not.
    assert ids[2::3].tolist().count(REST) == 1 + 6
    assert ids[-3:].tolist() == [SEPARATOR] * 3
    assert note_rows(decode_notes(ids)) == note_rows(piece.notes)
    assert grammar_check.check(ids) is None
    assert segment.loss_weights.tolist() == [0, 0] + [1] * len(ids)


@pytest.mark.parametrize(("first", "shift"), [(0, 0), (90, 0), (450, 0), (501, 501), (12_000, 12_000)])
def test_silence_in_front_is_kept_up_to_five_seconds(
    tmp_path: Path, tokenizer: Tokenizer, first: int, shift: int
) -> None:
    piece = music(np.array([first, first + 10]))
    (stretch,) = Drawer(tmp_path, piece, tokenizer).draw()
    ids = music_ids(stretch.segment())
    assert note_rows(decode_notes(ids)) == note_rows(piece.notes, shift)
    assert grammar_check.check(ids) is None  # no REST opens a piece


def test_a_long_piece_is_seen_through_windows_that_fill_a_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 600 * 20, 20))
    closed, starts = Counter(), Counter()
    seen = np.zeros(600)
    times = 1_500
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(times):
        ids = music_ids(stretch.segment())
        ends = ids[-1] == SEPARATOR
        # 20 ticks apart: onsets give the place away.
        first = stretch.events[0] // 20
        length = len(ids) // 3 - ends
        # The window that holds the last note but has no room for the closing triple stays open.
        assert ends == (first + length == 600 and length < 169)
        assert ids[0] == 0
        assert length == 169 - ends  # 512 = padding, begin-of-text, flag, 169 triples and 2 too few for another
        seen[first : first + length] += 1
        closed[bool(ends)] += 1
        starts[int(first)] += 1
    # 768 draws are alike; 168 of them give the opening, 168 the end. 4 standard deviations are .043.
    assert abs(starts[0] / times - 168 / 768) < 0.043
    assert abs(closed[True] / times - 168 / 768) < 0.043
    inner = seen[200:400] / times
    np.testing.assert_allclose(inner, 169 / 768, atol=0.053)
    assert (seen / times > 168 / 768 - 0.053).all()  # no note is seen less than the inner ones


def test_windows_end_where_an_onset_would_not_fit(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.array([0, 9_999, 10_000, 10_001]))
    (stretch,) = Drawer(tmp_path, piece, tokenizer).draw(row_length=1_024, window_start="piece")
    ids = music_ids(stretch.segment())
    assert find(piece, ids) == (0, 2)
    assert ids[-1] != SEPARATOR
    assert ids[ids < 10_000].max() == 9_999


def test_a_short_piece_is_shown_whole_by_the_short_way_as_by_the_long_one() -> None:
    """For which there is no room to spare."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        onsets = np.cumsum(rng.choice([0, 3, 90, 130, 450], int(rng.integers(1, 40))))
        rests = int((np.maximum(np.diff(onsets) - 1, 0) // 100).sum())
        room = len(onsets) + rests + 1
        if onsets[-1] < 10_000:
            base = 0 if onsets[0] <= 500 else int(onsets[0])
            for more in (0, 1, 500):
                assert _window(onsets, room + more, True, rng) == (0, len(onsets), base)


def test_a_run_may_always_start_at_the_beginning(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(30, 600 * 20, 20))
    drawer = Drawer(tmp_path, piece, tokenizer)
    for stretch in drawer.draw(5, window_start="piece"):
        assert find(piece, music_ids(stretch.segment())) == (0, 169)
    assert drawer.examples(window_start="piece").visits().tolist() == [1]
    assert drawer.examples(window_start="random").visits().tolist() == [-(-len(piece.notes) // 170)]


def test_cutting_loses_no_note_and_gives_music_of_its_own(tmp_path: Path, tokenizer: Tokenizer) -> None:
    onsets = np.cumsum(np.random.default_rng(1).choice([0, 7, 150], 150))
    piece = music(onsets, captions=("A song with piano.",))
    (stretch,) = Drawer(tmp_path, piece, tokenizer).draw(row_length=2_048)
    prompt = stretch.prompt
    heard: list[tuple[int, int, int]] = []
    origin = 0  # the first part begins the piece, the others with their own first note
    space = 300
    while stretch.size > space:
        cut = stretch.cut(space)
        assert cut is not None
        segment, rest = cut
        assert space - 3 < stretch.lead + len(segment) <= space
        ids = music_ids(segment)
        assert grammar_check.check(ids) is None
        assert ids[-1] != SEPARATOR
        assert segment.tokens[: len(prompt)].tolist() == prompt
        heard += note_rows(decode_notes(ids), -origin)
        origin = int(piece.notes.onsets[len(heard)])
        stretch = rest
    ids = music_ids(stretch.segment())
    assert grammar_check.check(ids) is None
    assert ids[-3:].tolist() == [SEPARATOR] * 3
    heard += note_rows(decode_notes(ids), -origin)
    assert heard == note_rows(piece.notes)


@pytest.mark.parametrize("kind", ["spans", "random", "instruments"])
def test_what_a_cut_left_fits_a_row(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    """Though controls that the first part had no room for come on top; else it would wait for ever, and all with it."""
    # Evenly spaced: controls leave gaps that rests fill, so that a window's last controls are not shown at first.
    piece = music(np.arange(0, 300 * 60, 60), programs=(0, 33, 40, 48))
    drawer = Drawer(tmp_path, piece, tokenizer)
    clipped = 0
    for seed in range(60):
        examples = drawer.examples(anticipation=AnticipationConfig(**{kind: 1.0}, span_rate=0.5))
        stretch = examples(0, np.random.default_rng(seed))
        again = examples(0, np.random.default_rng(seed))
        for space in (100, 130, 100):
            parts = stretch.cut(space)
            if parts is None:
                continue
            _, stretch = parts
            assert stretch.size <= ROW
            segment = stretch.segment()
            assert len(segment) + stretch.lead == stretch.size
            ids = music_ids(segment)
            assert grammar_check.check(ids) is None
            assert (ids[2::3] < REST).any()
            assert (ids[-1] == SEPARATOR) <= stretch.whole
            clipped += not stretch.whole
            # A run that goes on here finds the same.
            np.testing.assert_array_equal(again.after(stretch.offset).segment().tokens, segment.tokens)
            assert again.after(stretch.offset).size == stretch.size
    assert clipped > 5


def test_what_a_cut_left_is_found_again_by_its_offset(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 150 * 30, 30))
    shares = AnticipationConfig(instruments=1.0)
    drawer = Drawer(tmp_path, piece, tokenizer)
    for stretch, again in zip(drawer.draw(10, anticipation=shares), drawer.draw(10, anticipation=shares), strict=True):
        _, rest = stretch.cut(160) or pytest.fail("too short to cut")
        _, rest = rest.cut(160) or pytest.fail("too short to cut")
        np.testing.assert_array_equal(again.after(rest.offset).segment().tokens, rest.segment().tokens)


def test_music_too_short_to_cut_is_not_cut(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (stretch,) = Drawer(tmp_path, music(np.arange(0, 150 * 30, 30)), tokenizer).draw()
    assert stretch.cut(3 * 15) is None
    (short,) = Drawer(tmp_path / "short", music(np.arange(0, 31 * 30, 30)), tokenizer).draw()
    assert short.cut(3 * 29) is None  # it would leave fewer than 16 triples


@pytest.mark.parametrize("kind", ["spans", "random", "instruments"])
def test_controls_come_as_the_grammar_asks_and_lose_nothing(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    onsets = np.cumsum(np.random.default_rng(1).choice([0, 7, 20, 150], 150))
    piece = music(onsets + 300)
    anticipated = 0
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(
        100, row_length=4_096, anticipation=AnticipationConfig(**{kind: 1.0})
    ):
        segment = stretch.segment()
        ids = music_ids(segment)
        assert grammar_check.check(ids) is None
        controls = ids[2::3][:-1] >= CONTROL_OFFSET
        assert flag(segment) == (ANTICIPATE if controls.any() else AUTOREGRESS)
        assert not controls.all()
        assert sorted(note_rows(decode_notes(ids))) == sorted(note_rows(piece.notes))
        anticipated += bool(controls.any())
        # Cut anywhere, both parts are well-formed, and what follows the cut is complete.
        for space in (100, 333):
            part, rest = stretch.cut(space) or pytest.fail("too short to cut")
            assert grammar_check.check(music_ids(part)) is None
            assert grammar_check.check(music_ids(rest.segment())) is None
            later = set(note_rows(decode_notes(music_ids(rest.segment())), -int(rest.events[0])))
            assert {row for row in note_rows(piece.notes) if row[0] > rest.events[0]} <= later
    assert anticipated > 70


def test_a_row_that_controls_overfill_is_cut(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 168 * 60, 60)[:160])
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(100, anticipation=AnticipationConfig(random=1.0)):
        assert stretch.size <= ROW // 3 * 3
        segment = stretch.segment()
        assert grammar_check.check(music_ids(segment)) is None
        assert (music_ids(segment)[2::3] < REST).any()  # something is left to predict


def test_controls_are_drawn_in_the_proportions_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 150 * 30, 30), programs=(0, 40))
    shares = AnticipationConfig(spans=0.1, random=0.4, instruments=0.3)
    found = Counter()
    times = 1_000
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(times, row_length=2_048, anticipation=shares):
        written = stretch.written[2::3]
        if not (written >= CONTROL_OFFSET).any():
            found["none"] += 1
        elif len(set(((stretch.events[2::3] - NOTE_OFFSET) // 128).tolist())) == 1:
            found["instruments"] += 1
        else:
            spans = sum(control for control, _ in itertools.groupby(is_control(stretch)))
            found["spans" if spans <= 6 else "random"] += 1
    # A span that begins after the piece's 45 seconds leaves it plain: e^(-45 * .05) = 10.5 % of .1. Bounds: 4 sd.
    expected = {"spans": 0.0895, "random": 0.4, "instruments": 0.3, "none": 0.2105}
    for kind, share in expected.items():
        assert abs(found[kind] / times - share) < 4 * (share * (1 - share) / times) ** 0.5, (kind, found)


def is_control(stretch: MusicStretch) -> list[bool]:
    """Of each note in time order, whether it was moved to the controls (onsets are distinct)."""
    onsets = [(int(onset), False) for onset in stretch.events[0::3]]
    onsets += [(int(onset) - CONTROL_OFFSET, True) for onset in stretch.controls[0::3]]
    return [control for _, control in sorted(onsets)]


def test_one_instrument_is_never_anticipated_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 3_000, 30), programs=(5,))
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(20, anticipation=AnticipationConfig(instruments=1.0)):
        assert flag(stretch.segment()) == AUTOREGRESS


def test_compat_always_puts_the_same_flag(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 3_000, 30))
    shares = AnticipationConfig(instruments=1.0)
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(5, anticipation=shares, compat_flag=True):
        assert (music_ids(stretch.segment()) >= CONTROL_OFFSET + 11_000).any()
        assert flag(stretch.segment()) == AUTOREGRESS


def test_pitched_notes_shift_together_and_drums_stay(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 3_000, 30))
    drums = piece.notes.notes // 128 == 128
    shifts = Counter()
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(300, transpose=3):
        shift = decode_notes(music_ids(stretch.segment())).notes - piece.notes.notes
        assert (shift[drums] == 0).all()
        assert len(set(shift[~drums].tolist())) == 1
        shifts[int(shift[~drums][0])] += 1
    assert sorted(shifts) == [-3, -2, -1, 0, 1, 2, 3]
    assert min(shifts.values()) > 20  # 43 expected of each


def test_no_pitch_leaves_the_range(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 300, 30))
    notes = piece.notes.notes.copy()
    notes[:3] = [127, 40 * 128 + 1, 128 * 128]
    piece = dataclasses.replace(piece, notes=dataclasses.replace(piece.notes, notes=notes))
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(50, transpose=12):
        shifted = decode_notes(music_ids(stretch.segment())).notes
        assert shifted[0] in (126, 127)  # down one at most, as the second note is pitch 1
        assert (shifted // 128 == notes // 128).all()


def stretched(piece: Piece, heard: NoteTable) -> float:
    """The factor by which a whole piece was stretched; fails unless one explains every onset and duration."""
    before = np.concatenate([piece.notes.onsets, piece.notes.durations])
    after = np.concatenate([heard.onsets, heard.durations])
    longest = np.where(np.concatenate([heard.onsets < 0, heard.durations == 999]), np.inf, after + 0.5)
    known = before > 0
    assert (after[~known] == 0).all()
    least, most = ((after - 0.5)[known] / before[known]).max(), (longest[known] / before[known]).min()
    assert least <= most
    return float(least + most) / 2


def test_a_piece_is_stretched_as_a_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    onsets = np.cumsum(np.random.default_rng(1).choice([0, 1, 7, 90], 60))
    piece = music(onsets)
    factors = []
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(200, tempo_stretch=0.25):
        ids = music_ids(stretch.segment())
        assert grammar_check.check(ids) is None
        assert ids[-1] == SEPARATOR
        heard = decode_notes(ids)
        assert heard.notes.tolist() == piece.notes.notes.tolist()  # in their order
        assert heard.durations.max() <= 999
        factors.append(stretched(piece, heard))
    # As likely slower as faster: the logarithm is even over its range, so that a half is below 1, a quarter below .894.
    for share, bound in ((0.25, 1.25**-0.5), (0.5, 1.0), (0.75, 1.25**0.5)):
        assert abs(np.mean(np.array(factors) < bound) - share) < 4 * (share * (1 - share) / 200) ** 0.5
    assert 0.8 <= min(factors) < 0.82
    assert 1.22 < max(factors) <= 1.25


def test_a_stretched_window_fills_its_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Slower music has more rests; the window is chosen after it was slowed."""
    piece = music(np.arange(0, 600 * 90, 90))
    rests = set()
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(50, tempo_stretch=0.5, window_start="piece"):
        ids = music_ids(stretch.segment())
        assert grammar_check.check(ids) is None
        rests.add(bool((ids[2::3] == REST).any()))
        # The row has no room for another rest and note, or their onset, 135 ticks on, would be beyond 10,000.
        assert len(ids) // 3 >= 168 or ids[-3] >= 10_000 - 135
    assert rests == {False, True}


def test_no_stretch_leaves_all_draws_as_they_are(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """So that a run of before goes on with the batches that it would have had."""
    piece = music(np.arange(0, 6_000, 10))
    drawer = Drawer(tmp_path, piece, tokenizer)
    config = {"anticipation": AnticipationConfig(spans=0.1, random=0.4, instruments=0.4), "transpose": 5}
    for seed, stretch in enumerate(drawer.draw(20, **config)):
        # The draws one after the other, as they were before there was a stretch: caption, window, shift, controls.
        rng = np.random.default_rng(seed)
        rng.random()
        first = int(np.clip(rng.integers(1 - 168, 600), 0, 600 - 168))
        shift = int(rng.integers(-5, 6))
        assert {int(event) for event in stretch.events[0::3]} <= set(range(10 * first, 10 * first + 2_000))
        pitched = stretch.events[2::3] < NOTE_OFFSET + 128 * 128
        notes = {(10 * place, int(note)) for place, note in enumerate(piece.notes.notes)}
        for onset, note in zip(stretch.events[0::3][pitched], stretch.events[2::3][pitched], strict=True):
            assert (int(onset), int(note) - NOTE_OFFSET - shift) in notes


@pytest.mark.parametrize("alter", [False, True])
def test_music_shown_with_its_caption_keeps_key_and_tempo(tmp_path: Path, tokenizer: Tokenizer, alter: bool) -> None:
    """Unless the run asks otherwise; without its caption it does not."""
    piece = music(np.arange(0, 3_000, 30), captions=("A song in A minor at 120 beats a minute.",))
    drawer = Drawer(tmp_path, piece, tokenizer)
    kept = Counter()
    for stretch in drawer.draw(
        300, row_length=1_024, caption_dropout=0.5, transpose=6, tempo_stretch=0.2, alter_captioned=alter
    ):
        heard = decode_notes(music_ids(stretch.segment()))
        captioned = len(stretch.prompt) > 1
        kept["key", captioned] += bool((heard.notes == piece.notes.notes).all())
        kept["tempo", captioned] += bool((heard.onsets == piece.notes.onsets).all())
        kept["all", captioned] += 1
    assert min(kept["all", True], kept["all", False]) > 100
    # A shift of 0 is one of 13, a factor that moves no onset of 3,000 ticks is one of thousands.
    assert kept["key", False] < 0.2 * kept["all", False]
    assert kept["tempo", False] < 5
    if alter:
        assert kept["key", True] < 0.2 * kept["all", True]
        assert kept["tempo", True] < 5
    else:
        assert kept["key", True] == kept["tempo", True] == kept["all", True]


def test_captioned_music_is_anticipated_all_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 3_000, 30), captions=("A song in A minor.",))
    drawer = Drawer(tmp_path, piece, tokenizer)
    for stretch in drawer.draw(10, row_length=1_024, anticipation=AnticipationConfig(instruments=1.0), transpose=6):
        assert len(stretch.prompt) > 1
        assert flag(stretch.segment()) == ANTICIPATE


def test_captions_are_drawn_and_dropped(tmp_path: Path, tokenizer: Tokenizer) -> None:
    captions = ("A song with piano.", "Bass and drums.", "Number 7.")
    drawer = Drawer(tmp_path, music(np.arange(0, 300, 30), captions=captions), tokenizer)
    times = 500

    def shown(**data: object) -> Counter[str]:
        texts = (tokenizer.decode(stretch.prompt).strip() for stretch in drawer.draw(times, **data))
        return Counter(text.removeprefix(PROMPT_PREFIX) for text in texts)

    found = shown(caption_dropout=0.25)
    assert set(found) == {*captions, ""}
    assert abs(found[""] / times - 0.25) < 4 * (0.25 * 0.75 / times) ** 0.5
    for caption in captions:
        assert abs(found[caption] / times - 0.25) < 4 * (0.25 * 0.75 / times) ** 0.5
    assert set(shown(caption_dropout=0.0)) == set(captions)
    assert set(shown(caption_dropout=1.0)) == {""}
    (weighed,) = drawer.draw(1, prompt_weight=0.5)
    length = len(weighed.prompt)
    assert weighed.segment().loss_weights[: length + 1].tolist() == [0, *[0.5] * (length - 1), 0]


def test_held_out_music_is_shown_as_it_is(tmp_path: Path, tokenizer: Tokenizer) -> None:
    piece = music(np.arange(0, 3_000, 30), captions=("A song with piano.",))
    drawer = Drawer(tmp_path, piece, tokenizer)
    everything = {
        "transpose": 12,
        "tempo_stretch": 0.5,
        "alter_captioned": True,
        "anticipation": AnticipationConfig(random=1.0),
    }
    for stretch in drawer.draw(10, augment=False, caption_dropout=0.9, **everything):
        assert note_rows(decode_notes(music_ids(stretch.segment()))) == note_rows(piece.notes)
        assert flag(stretch.segment()) == AUTOREGRESS
        assert "A song with piano." in tokenizer.decode(stretch.prompt)
    # A run that never sees a caption is not asked about one.
    (bare,) = drawer.draw(augment=False, caption_dropout=1.0)
    assert bare.prompt == [tokenizer.bos_id]


def test_a_caption_that_leaves_no_room_gives_way(
    tmp_path: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    """To the longest of the piece's captions that fits, or to none; the first such record is named, once."""
    long, short, longer = "piano " * 600, "Piano.", "A song with piano, bass and drums."
    onsets = np.arange(0, 600, 30)
    examples = Drawer(tmp_path / "three", music(onsets, captions=(long, short, longer)), tokenizer).examples()
    shown = Counter(tokenizer.decode(examples(0, np.random.default_rng(seed)).prompt).strip() for seed in range(100))
    assert set(shown) == {f"{PROMPT_PREFIX}{short}", f"{PROMPT_PREFIX}{longer}"}
    assert shown[f"{PROMPT_PREFIX}{longer}"] > 50  # 67 expected: its own share and that of the long one
    assert examples.long_captions == {0}
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path / 'three'}: a caption of train record 0 (20 notes.mid) takes " in line
    assert "of a row of 512" in line
    alone = Drawer(tmp_path / "one", music(onsets, captions=(long,)), tokenizer).examples()
    stretch = alone(0, np.random.default_rng(0))
    assert stretch.prompt == [tokenizer.bos_id]
    assert len(decode_notes(music_ids(stretch.segment()))) == 20


def test_the_least_room_behind_a_caption(tmp_path: Path, tokenizer: Tokenizer) -> None:
    caption = "A song with piano."
    drawer = Drawer(tmp_path, music(np.arange(0, 600, 30), captions=(caption,)), tokenizer)
    prompt = prompt_ids(tokenizer, caption)
    least = len(prompt) + 1 + lead(len(prompt) + 1) + 3 * LEAST_TRIPLES
    for row_length, shown, long in ((least, prompt, set()), (least - 1, [tokenizer.bos_id], {0})):
        examples = drawer.examples(row_length=row_length)
        assert examples(0, np.random.default_rng(0)).prompt == shown
        assert examples.long_captions == long


@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_spans_last_as_long_as_asked(tmp_path: Path, tokenizer: Tokenizer, seconds: float) -> None:
    piece = music(np.arange(0, 6_000, 10))
    shares = AnticipationConfig(spans=1.0, span_rate=1.0, span_seconds=seconds)
    lengths = Counter()
    for stretch in Drawer(tmp_path, piece, tokenizer).draw(20, row_length=4_096, anticipation=shares):
        runs = [len(list(run)) for control, run in itertools.groupby(is_control(stretch)) if control]
        lengths.update(runs[:-1])  # the piece may end within the last
    # Ten notes a second; spans that follow one another at once run together.
    assert min(lengths) == lengths.most_common(1)[0][0] == 10 * seconds
    assert all(length % (10 * seconds) == 0 for length in lengths)


def test_text_is_cut_anywhere_and_ends_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ids = np.random.default_rng(0).integers(3, TEXT_VOCAB, 1_000).astype(np.int32)
    with ShardWriter(tmp_path, "train") as writer:
        writer.write(pack_text(TextRecord(ids, "test", "book.txt")), len(ids))
    marks = TokenizerId(tokenizer.fingerprint, TEXT_VOCAB)
    write_manifest(tmp_path, Manifest("text", {"train": writer.split}, {"test": 1}, (), {}, {}, marks))
    stretch: TextStretch = TextExamples(open_split(tmp_path, "train"), 3, tokenizer)(0, np.random.default_rng(0))
    whole = stretch.segment()
    assert whole.tokens.tolist() == [tokenizer.bos_id, *ids, tokenizer.eos_id]
    assert stretch.size == len(whole)
    read: list[int] = []
    for space in (400, 300):
        segment, stretch = stretch.cut(space) or pytest.fail("too short to cut")
        assert len(segment) == space
        assert segment.tokens[0] == tokenizer.bos_id
        assert segment.loss_weights.tolist() == [0] + [1] * (space - 1)
        read += segment.tokens[1:].tolist()
        assert stretch.offset == len(read)
    last = stretch.segment().tokens.tolist()
    assert last[0] == tokenizer.bos_id
    assert [*read, *last[1:]] == [*ids, tokenizer.eos_id]
    assert stretch.cut(17 - 1) is None


def test_record_ids_hold_folder_and_record() -> None:
    for pair in ((0, 0), (3, 2_100_000), (1_000, 2**40 - 1)):
        assert split_record_id(record_id(*pair)) == pair
    assert np.int64(record_id(1_000, 2**40 - 1)) > 0
