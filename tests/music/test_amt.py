"""Notes to ids and back: what decoding passes over, and the reference's faults with and without compat."""

import io

import mido
import numpy as np
import pytest

from midillm_jax.music.amt import decode_midi, decode_notes, encode_midi, encode_notes
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import ANTICIPATE, AUTOREGRESS, CONTROL_OFFSET, REST, SEPARATOR, VOCAB_SIZE

PIANO = 11_000 + 60
"""The id of middle C on program 0."""
DRUM = 11_000 + 128 * 128 + 36


def ids(*triples: tuple[int, int, int]) -> np.ndarray:
    return np.array(triples, np.int32).reshape(-1)


def control(onset: int, duration: int, note: int) -> tuple[int, int, int]:
    return onset + CONTROL_OFFSET, duration + CONTROL_OFFSET, note + CONTROL_OFFSET


def rows(table: NoteTable) -> list[tuple[int, int, int]]:
    columns = (table.onsets, table.durations, table.notes)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def messages(data: bytes) -> list[tuple[int, str, int, int]]:
    """(absolute tick, type, channel, note) of the notes in merged order."""
    found, now = [], 0
    for message in mido.MidiFile(file=io.BytesIO(data)).merged_track:
        now += message.time
        if message.type in ("note_on", "note_off"):
            found.append((now, message.type, message.channel, message.note))
    return found


def test_a_note_is_onset_duration_and_note_id():
    table = NoteTable(*(np.array(c, np.int32) for c in ([7, 40_000], [0, 999], [0, 16_511])), np.full(2, 1, np.uint8))
    events = encode_notes(table)
    assert (events.dtype, events.tolist()) == (np.int32, [7, 10_000, 11_000, 40_000, 10_999, 27_511])
    decoded = decode_notes(events)
    assert rows(decoded) == rows(table)
    assert decoded.velocities.tolist() == [72, 72]


def test_controls_are_notes_at_their_own_time():
    woven = ids(control(900, 10_050, PIANO), (100, 10_020, DRUM), control(950, 10_060, DRUM), (940, 10_001, PIANO))
    assert rows(decode_notes(woven)) == [
        (100, 20, DRUM - 11_000),
        (900, 50, 60),
        (940, 1, 60),
        (950, 60, DRUM - 11_000),
    ]


def test_an_onset_beyond_the_ids_of_controls_stays_where_it_is():
    """275.13 seconds is where the reference starts to take onsets for controls, 550.25 for separators."""
    triples = [(onset, 10_010, PIANO) for onset in (27_512, 27_513, 40_000, 55_024, 55_025, 55_026, 55_027, 200_000)]
    assert rows(decode_notes(ids(*triples))) == [(onset, 10, 60) for onset, _, _ in triples]
    assert rows(decode_notes(ids(control(*triples[0])))) == [(27_512, 10, 60)]


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda e: [AUTOREGRESS, *e], id="flag"),
        pytest.param(lambda e: [ANTICIPATE, *e, SEPARATOR, SEPARATOR, SEPARATOR], id="flag and separator"),
        pytest.param(lambda e: [*e, 700], id="a third of a triple"),
        pytest.param(lambda e: [*e, 700, 10_010], id="two thirds of a triple"),
        pytest.param(lambda e: [SEPARATOR] * 3 + [*e], id="separator in front"),
        pytest.param(lambda e: [100, 10_000, REST, *e, 10_600, 10_000, REST], id="rests"),
        pytest.param(lambda e: [*e[:3], 10_100, 10_000, REST, *e[3:]], id="a rest between, its onset like a duration"),
        pytest.param(lambda e: [*e[:3], AUTOREGRESS, *e[3:]], id="flag between"),
        pytest.param(lambda e: [*e[:3], 12_000, *e[3:]], id="a note out of place"),
        pytest.param(lambda e: [10_001, *e], id="a duration out of place"),
        pytest.param(lambda e: [*e[:3], 9, 10_005 + CONTROL_OFFSET, PIANO, *e[3:]], id="half event, half control"),
        pytest.param(
            lambda e: [9, 10_005 + CONTROL_OFFSET, PIANO + CONTROL_OFFSET, *e], id="a control's onset missing"
        ),
        pytest.param(lambda e: [*e[:3], 55_028, 55_029, *e[3:]], id="reserved"),
    ],
)
def test_what_is_no_note_is_passed_over(wrap):
    events = ids((10_500, 10_050, PIANO), (10_550, 10_020, DRUM))
    assert rows(decode_notes(np.array(wrap(events.tolist())))) == [(10_500, 50, 60), (10_550, 20, DRUM - 11_000)]


def test_of_two_triples_that_overlap_the_first_counts():
    assert rows(decode_notes(np.array([5, 10_010, 11_060, 10_020, 11_070]))) == [(5, 10, 60)]


@pytest.mark.parametrize("seed", range(20))
def test_any_ids_decode_to_a_file(seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, VOCAB_SIZE, 300)
    shaped = rng.integers([0, 10_000, 11_000], [10_000, 11_000, REST + 1], (60, 3)).reshape(-1)
    mixed = np.where(rng.random(180) < 0.1, rng.integers(0, VOCAB_SIZE, 180), shaped)
    for sequence in (noise, shaped, mixed, noise[:1], noise[:2]):
        table = decode_notes(sequence)
        assert (np.diff(table.onsets, prepend=0) >= 0).all()
        assert ((table.durations >= 0) & (table.durations < 1000) & (table.notes >= 0) & (table.notes < 16_512)).all()
        ons = [message for message in messages(decode_midi(sequence)) if message[1] == "note_on"]
        assert len(ons) == len(table)


def test_no_ids_give_a_file_without_notes():
    for empty in (np.zeros(0, np.int32), np.array([AUTOREGRESS]), ids((100, 10_000, REST))):
        assert messages(decode_midi(empty)) == []


def test_decoded_files_encode_to_the_same_ids():
    events = ids((0, 10_050, PIANO), (50, 10_050, PIANO), (60, 10_001, DRUM), (30_000, 10_999, PIANO + 128))
    assert encode_midi(decode_midi(events)).tolist() == events.tolist()


def test_a_repeated_note_is_released_before_it_is_struck_again():
    events = ids((0, 10_050, PIANO), (50, 10_050, PIANO))
    assert messages(decode_midi(events)) == [
        (0, "note_on", 0, 60),
        (50, "note_off", 0, 60),
        (50, "note_on", 0, 60),
        (100, "note_off", 0, 60),
    ]
    assert [kind for _, kind, _, _ in messages(decode_midi(events, compat=True))[1:3]] == ["note_on", "note_off"]


def test_drums_take_no_melodic_channel():
    events = ids((0, 10_050, DRUM), *[(1, 10_050, PIANO + 128 * program) for program in range(15)])
    channels = {channel for _, _, channel, _ in messages(decode_midi(events))}
    assert channels == set(range(16))
    with pytest.raises(ValueError, match="more programs than channels"):
        decode_midi(events, compat=True)


def test_compat_moves_late_events_as_the_reference_does():
    events = ids((27_513 + 5, 10_010, PIANO))
    assert messages(decode_midi(events, compat=True))[0] == (5, "note_on", 0, 60)
    assert messages(decode_midi(events))[0] == (27_518, "note_on", 0, 60)


def test_compat_puts_a_piece_behind_the_one_before():
    pieces = ids((10, 10_020, PIANO), (SEPARATOR,) * 3, (5, 10_010, PIANO), (700, 10_000, REST))
    assert [m[0] for m in messages(decode_midi(pieces, compat=True))] == [10, 30, 35, 45]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(0, np.int32),
        ids((100, 10_000, REST)),
        np.concatenate([[AUTOREGRESS], ids((0, 10_050, PIANO), (9, 10_001, PIANO))]),
        ids(control(0, 10_050, PIANO), control(5, 10_000, REST)),
        ids((0, 10_050, PIANO), (55_025, 10_050, PIANO)),
        ids((0, 9_999, PIANO)),
        ids((0, 11_000, PIANO)),
    ],
)
def test_compat_raises_where_the_reference_does(bad):
    with pytest.raises(ValueError, match=r"compat: .* which the reference cannot write"):
        decode_midi(bad, compat=True)
    decode_midi(bad)


def test_compat_drops_an_unfinished_triple():
    events = ids((0, 10_050, PIANO), (9, 10_001, PIANO))
    assert decode_midi(events[:5], compat=True) == decode_midi(events[:3], compat=True)
