"""Reading: rule by rule on bytes written by hand, then against mido on mutated files. Writing: what it reads back."""

import io
import pickle
import random
import subprocess
import sys
from collections import Counter, defaultdict, deque

import mido
import numpy as np
import pytest

from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.midi import MidiError, NoteTable, read_midi, write_midi
from tests.music.files import END, ONE_NOTE, smf, track

ON, OFF, HALF_SECOND = b"\x90\x3c\x64", b"\x80\x3c\x00", b"\x83\x60"  # 480 ticks, at 480 a beat and 120 bpm


@pytest.fixture(params=["plain", "compiled"])
def read(request):
    """The reader as plain Python and as compiled by numba."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    return lambda data: read_midi(data, compiled=request.param == "compiled")


def rows(table: NoteTable) -> list[tuple[int, int, int, int]]:
    """(onset, duration, note, velocity) of each note."""
    columns = (table.onsets, table.durations, table.notes, table.velocities)
    return list(zip(*(column.tolist() for column in columns), strict=True))


ONE_ROW = [(0, 50, 60, 100)]


def test_table_has_the_types_it_promises(read):
    table = read(smf(ONE_NOTE))
    assert rows(table) == ONE_ROW
    assert [column.dtype for column in (table.onsets, table.durations, table.notes)] == [np.int32] * 3
    assert table.velocities.dtype == np.uint8
    assert (table.tempos.dtype, table.tempos.tolist()) == (np.int64, [[0, 500_000]])
    assert (table.meters.dtype, table.meters.shape) == (np.int32, (0, 3))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(smf(ONE_NOTE, form=0), id="type 0"),
        pytest.param(smf(ONE_NOTE, form=3), id="type 3 is read as type 1"),
        pytest.param(smf(ONE_NOTE) + b"trailing", id="bytes behind the last track"),
        pytest.param(b"MThd\x00\x00\x00\x08" + smf(ONE_NOTE)[8:14] + b"\x01\x02" + ONE_NOTE, id="longer header"),
        pytest.param(smf(track(b"\x00" + ON, HALF_SECOND + OFF)), id="no end of track"),
        pytest.param(smf(track(END, b"\x00" + ON, END, HALF_SECOND + OFF)), id="events behind the end of track"),
        pytest.param(
            smf(track(b"\x00" + ON, b"\x81\x70\xff\x2f\x00", b"\x81\x70" + OFF)), id="end of track takes time"
        ),
        pytest.param(smf(track(b"\x80" * 40 + b"\x00" + ON, HALF_SECOND + OFF)), id="long variable-length number"),
        pytest.param(smf(track(b"\x00" + ON, HALF_SECOND + b"\x3c\x00")), id="running status, velocity 0 ends a note"),
        pytest.param(
            smf(track(b"\x00" + ON, HALF_SECOND + b"\xff\x01\x02hi", b"\x00\x3c\x00")), id="running across a meta event"
        ),
        pytest.param(
            smf(track(b"\x00\xf0\x02\x01\xf7", b"\x00\x55\x01\xf7", b"\x00" + ON, HALF_SECOND + OFF)),
            id="running status of a system exclusive message drops a byte",
        ),
        pytest.param(smf(track(b"\x00\xf0\x03\xf0\x01\xf7", b"\x00" + ON, HALF_SECOND + OFF)), id="f0 within f0"),
        pytest.param(smf(track(b"\x00\xf7\x00", b"\x00" + ON, HALF_SECOND + OFF)), id="empty f7"),
        pytest.param(
            smf(
                track(
                    b"\x00\xf1\x01\x00\xf2\x01\x02\x00\x03\x04\x00\xf3\x01\x00\xf6\x00\xf8\x00\xfa\x00\xfb\x00\xfc\x00\xfe",
                    b"\x00" + ON,
                    HALF_SECOND + OFF,
                )
            ),
            id="system common and real time messages",
        ),
        pytest.param(
            smf(track(b"\x00" + ON, b"\x8f\x00\xff\x60\x01\x55", HALF_SECOND + OFF)), id="unknown meta's delta"
        ),
        pytest.param(
            smf(track(b"\x00" + OFF, b"\x00" + ON, HALF_SECOND + OFF, b"\x00" + OFF)), id="offs without an on"
        ),
        pytest.param(
            smf(track(b"\x00" + ON, HALF_SECOND + b"\x81\x3c\x00\x00\x80\x3c\x00")), id="off of another channel"
        ),
        pytest.param(smf(track(b"\x00\xff\x58\x04\x04\x1c\x18\x08", ONE_NOTE[8:])), id="2**28 as a denominator"),
        pytest.param(smf(track(b"\x00\xff\x59\x02\xf9\x01", ONE_NOTE[8:])), id="seven flats"),
        pytest.param(smf(track(b"\x00\xff\x54\x05\x60\x3b\x3b\xff\x63", ONE_NOTE[8:])), id="largest SMPTE offset"),
        pytest.param(smf(track(b"\x00\xff\x00\x00\x00\xff\x21\x00", ONE_NOTE[8:])), id="empty number and port"),
    ],
)
def test_reads_the_one_note(read, data):
    assert rows(read(data)) == ONE_ROW


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "cut short", 0),
        (b"RIFF" + smf(ONE_NOTE), "MThd", 0),
        (b"MThd\x00\x00\x00\x05" + smf(ONE_NOTE)[8:], "shorter than its six", 4),
        (smf()[:-1], "cut short", 13),
        (smf(ONE_NOTE, form=2), "type 2", 8),
        (smf(ONE_NOTE, count=2), "more tracks", 14 + len(ONE_NOTE)),
        (smf(ONE_NOTE, b"XFIH\x00\x00\x00\x00", ONE_NOTE), "where track 2 was expected", 14 + len(ONE_NOTE)),
        (smf(ONE_NOTE)[:-1], "track 1 is said to be longer", 18),
        (smf(b"MTrk\x00\x00\x00\x07" + ONE_NOTE[8:]), "track 1 runs past the end", 29),
        (smf(track(b"\x00\x3c\x64")), "data byte 0x3c before any status", 23),
        (smf(track(b"\x00\x90\x3c\x80")), "byte 0x80 where a data byte", 25),
        (smf(track(b"\x00\xc0\x80")), "byte 0x80 where a data byte", 24),
        (smf(track(b"\x00\xf4")), "undefined status byte 0xf4", 23),
        (smf(track(b"\x00\xf5")), "undefined status byte 0xf5", 23),
        (smf(track(b"\x00\xf9")), "undefined status byte 0xf9", 23),
        (smf(track(b"\x00\xfd")), "undefined status byte 0xfd", 23),
        (smf(track(b"\x00\xf8\x00\x01")), "data byte 0x01 after a message that takes none", 25),
        (smf(track(b"\x00\xf0\x03\x01\x90\xf7")), "byte 0x90 inside a system exclusive", 26),
        (smf(track(b"\x00\xf0\xbd\x84\x41" + bytes(1_000_001))), "longer than 1,000,000", 23),
        (smf(track(b"\x00\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), "longer than 1,000,000", 23),
        (smf(track(b"\x00\xff\x00\x01\x05")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x20\x00")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x51\x02\x01\x02")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x58\x03\x04\x02\x18")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x59\x01\x00")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x54\x04\x00\x00\x00\x00")), "too few bytes", 23),
        (smf(track(b"\x00\xff\x58\x04\x04\x1d\x18\x08")), "denominator", 23),
        (smf(track(b"\x00\xff\x59\x02\x08\x00")), "key signature", 23),
        (smf(track(b"\x00\xff\x59\x02\xf8\x00")), "key signature", 23),
        (smf(track(b"\x00\xff\x59\x02\x00\x02")), "key signature", 23),
        (smf(track(b"\x00\xff\x54\x05\x80\x00\x00\x00\x00")), "SMPTE offset", 23),
        (smf(track(b"\x00\xff\x54\x05\x00\x3c\x00\x00\x00")), "SMPTE offset", 23),
        (smf(track(b"\x00\xff\x54\x05\x00\x00\x3c\x00\x00")), "SMPTE offset", 23),
        (smf(track(b"\x00\xff\x54\x05\x00\x00\x00\x00\x64")), "SMPTE offset", 23),
        (smf(ONE_NOTE, division=-7720), "time division", 12),
        (smf(ONE_NOTE, division=0), "time division", 12),
        (smf(track(b"\x00" + ON, b"\x01\xff\x2f\x00"), division=0), "time division", 12),
        (smf(track(b"\x00" + OFF)), "no notes", 26),
        (smf(count=0xFFFF), "no notes", 14),
        (smf(track(b"\x00" + ON, b"\xff" * 7 + b"\x7f" + ON)), "begins later than 21,474,836 seconds", 35),
    ],
)
def test_rejects_with_reason_and_place(read, data, reason, offset):
    with pytest.raises(MidiError, match=rf".*{reason}.*\(byte {offset}\)"):
        read(data)


@pytest.mark.parametrize("behind", [b"", ONE_NOTE], ids=["the file ends", "another track follows"])
@pytest.mark.parametrize("left", [1, 2, 3, 4])
@pytest.mark.parametrize("event", [b"\x83\x60\x90\x3c\x64", b"\x83\x60\x3c\x64", b"\x00\x90\x3c\x64"])
def test_an_event_that_its_track_cuts_off_is_not_read_on(read, event, left, behind):
    data = smf(track(b"\x00" + ON, event[: min(left, len(event) - 1)]), count=2) + behind
    end = len(data) - len(behind)
    with pytest.raises(MidiError, match=rf"track 1 runs past the end of the track \(byte {end}\)"):
        read(data)


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(MidiError("no notes", 26)))
    assert (str(error), error.offset) == ("no notes (byte 26)", 26)


def test_a_division_that_cannot_be_read_is_no_error_while_no_tick_passes(read):
    for division in (0, -7720):
        assert rows(read(smf(track(b"\x00" + ON, b"\x00" + OFF), division=division))) == [(0, 0, 60, 100)]


def test_durations(read):
    notes = [
        b"\x00\x90\x3c\x64\x00\x80\x3c\x00",  # no length
        b"\x00\x90\x3d\x64",  # closed after 10 s
        b"\x00\x90\x3e\x64",  # never closed
        b"\x00\x90\x3f\x64\xcb\x00\x80\x3f\x00\x00\x80\x3d\x00",  # 9,600 ticks: 10 s
        b"\x00\x90\x40\x64\xca\x70\x80\x40\x00",  # 9,584 ticks: 9.983 s
    ]
    assert read(smf(track(*notes))).durations.tolist() == [0, 999, 25, 999, 998]


def test_times_are_rounded_half_to_even(read):
    """At 100 ticks a beat a tick is 5 ms: 1 and 3 ticks are 0.5 and 1.5 of our ticks."""
    data = smf(track(b"\x01" + ON, b"\x02\x90\x3d\x64\x01\x80\x3c\x00\x03\x80\x3d\x00"), division=100)
    assert rows(read(data)) == [(0, 2, 60, 100), (2, 2, 61, 100)]


def test_the_clock_computes_in_the_order_of_the_reference(read):
    """42 ticks of 400 ms / 480 are 35 ms, which rounds to 4; the reference's doubles fall just short of it."""
    data = smf(track(b"\x00\xff\x51\x03\x06\x1a\x80", b"\x2a" + ON, b"\x30" + OFF))
    assert rows(read(data)) == [(3, 4, 60, 100)]


def test_notes_of_equal_pitch_close_first_in_first_out(read):
    data = smf(track(b"\x00\x90\x3c\x01", b"\x30\x3c\x02", b"\x30\x3c\x00", b"\x30\x3c\x00"))
    assert rows(read(data)) == [(0, 10, 60, 1), (5, 10, 60, 2)]


def test_channels_close_separately_and_programs_are_theirs(read):
    first = track(b"\x00\xc0\x05\x00\x90\x3c\x01", b"\x30\x80\x3c\x00")
    second = track(b"\x00\x91\x3c\x02", b"\x60\x81\x3c\x00")
    drums = track(b"\x00\xc9\x07\x00\x99\x24\x03\x30\xc9\x08\x00\x89\x24\x00")
    assert rows(read(smf(first, second, drums))) == [
        (0, 5, 5 * 128 + 60, 1),
        (0, 10, 60, 2),
        (0, 5, 128 * 128 + 36, 3),
    ]


def test_a_program_change_leaves_an_open_note_unclosed_until_the_program_is_back(read):
    data = smf(track(b"\x00" + ON, b"\x30\xc0\x01", b"\x00" + OFF, b"\x00" + ON, b"\x30\xc0\x00\x30" + OFF))
    assert rows(read(data)) == [(0, 15, 60, 100), (5, 25, 188, 100)]


def test_program_changes_merge_across_tracks_in_track_order(read):
    """At one tick the change in the first track is before the note in the second, and behind the other way round."""
    change, note = track(b"\x00\xc0\x05"), ONE_NOTE
    assert read(smf(change, note)).programs() == (5,)
    assert read(smf(note, change)).programs() == (0,)


def test_the_last_tempo_of_a_tick_holds_for_all_tracks(read):
    tempos = track(HALF_SECOND + b"\xff\x51\x03\x01\x00\x00", b"\x00\xff\x51\x03\x0f\x42\x40")  # then 1 s a beat
    notes = track(HALF_SECOND + ON, HALF_SECOND + OFF)
    table = read(smf(notes, tempos))
    assert rows(table) == [(50, 100, 60, 100)]
    assert table.tempos.tolist() == [[0, 500_000], [50, 1_000_000]]


def test_tempo_zero_stops_the_clock(read):
    table = read(smf(track(b"\x00\xff\x51\x03\x00\x00\x00", HALF_SECOND + ON, HALF_SECOND + OFF)))
    assert rows(table) == [(0, 0, 60, 100)]
    assert table.tempos.tolist() == [[0, 0]]


def test_meters_are_kept_where_they_change_and_make_sense(read):
    def meter(numerator: int, exponent: int) -> bytes:
        return b"\xff\x58\x04" + bytes([numerator, exponent, 24, 8])

    changes = [(3, 2), (3, 2), (0, 2), (6, 3), (6, 8)]
    data = smf(track(*[HALF_SECOND + meter(*change) for change in changes], b"\x00" + ON))
    assert read(data).meters.tolist() == [[50, 3, 4], [200, 6, 8]]


def test_programs_and_seconds_of_a_table():
    table = NoteTable(
        *(np.array(c, np.int32) for c in ([0, 1, 2], [300, 1, 1], [650, 3, 641])), np.full(3, 9, np.uint8)
    )
    assert (len(table), table.programs(), table.seconds()) == (3, (5, 0), 3.0)


def test_importing_the_reader_loads_no_numba():
    code = "import sys, midillm_jax.music.amt; assert not {'numba', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------- against mido, on mutated files


def mido_rows(data: bytes) -> list[tuple[int, int, int, int]] | None:
    """What mido's parser and clock make of the bytes, by the rules that the reference adds; None if it refuses them."""
    try:
        now, programs, events = 0.0, defaultdict(int), []
        waiting: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
        started: list[float] = []
        for message in mido.MidiFile(file=io.BytesIO(data)):
            if message.time < 0:
                return None
            now += message.time
            if message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type in ("note_on", "note_off"):
                program = 128 if message.channel == 9 else programs[message.channel]
                queue = waiting[program, message.note, message.channel]
                if message.type == "note_on" and message.velocity:
                    queue.append(len(events))
                    started.append(now)
                    events.append([round(100 * now), 25, 128 * program + message.note, message.velocity])
                elif queue:
                    index = queue.popleft()
                    events[index][1] = min(999, round(100 * (now - started[index])))
    except (OSError, EOFError, ValueError, TypeError, LookupError, ZeroDivisionError, OverflowError):
        return None
    except mido.KeySignatureError:
        return None
    if not events or events[-1][0] > 2**31 - 1:
        return None
    return [tuple(event) for event in events]


def random_file(rng: random.Random) -> bytes:
    """A small file with every kind of message."""
    tracks = []
    for _ in range(rng.randint(1, 3)):
        events = []
        for _ in range(rng.randint(1, 40)):
            delta = rng.choice([b"\x00", b"\x00", b"\x07", b"\x60", b"\x83\x60"])
            channel = rng.choice([0, 1, 9])
            pitch = rng.choice([60, 61])
            message = rng.choice(
                [bytes([0x90 | channel, pitch, rng.choice([0, 64, 100])])] * 8
                + [bytes([0x80 | channel, pitch, 0])] * 4
                + [bytes([pitch, 100])]  # running status, or an error
                + [bytes([0xC0 | channel, rng.randrange(3)])] * 2
                + [bytes([0xB0 | channel, 7, 100]), bytes([0xE0, 0, 64]), b"\xff\x01\x01a", b"\xff\x60\x01a", b"\xf8"]
                + [b"\xff\x51\x03" + rng.choice([b"\x07\xa1\x20", b"\x00\x00\x00", rng.randbytes(3)])] * 2
                + [b"\xff\x58\x04\x03\x02\x18\x08", b"\xff\x59\x02\x01\x00", b"\xff\x2f\x00", b"\xff\x7f\x00"]
                + [
                    b"\xff\x54\x05\x01\x02\x03\x04\x05",
                    b"\xf0\x02\x01\xf7",
                    b"\xf7\x01\x01",
                    b"\xf2\x01\x02",
                    b"\xf3\x01",
                ]
            )
            events.append(delta + message)
        tracks.append(track(*events, *([END] if rng.random() < 0.8 else [])))
    return smf(*tracks, form=rng.choice([0, 1, 1, 1, 1, 5]), division=rng.choice([480, 96, 1, 32767, 100]))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The file with a byte or two changed, lost or doubled, or cut short."""
    broken = bytearray(data)
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(len(broken))
        how = rng.randrange(5)
        if how == 0:
            broken[at] = rng.randrange(256)
        elif how == 1:
            broken[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del broken[at : at + rng.randint(1, 4)]
        elif how == 3:
            broken[at:at] = rng.choice([b"\xff" * rng.randint(1, 12), broken[at : at + 20], rng.randbytes(2)])
        else:
            del broken[at:]
        if not broken:
            break
    return bytes(broken)


def read_rows(read, data: bytes) -> list[tuple[int, int, int, int]] | None:
    try:
        return rows(read(data))
    except MidiError:
        return None


def test_reads_what_mido_reads(read):
    rng = random.Random(0)
    accepted = 0
    for _ in range(500):
        data = mutated(rng, random_file(rng))
        found = read_rows(read, data)
        assert found == mido_rows(data), data.hex()
        accepted += found is not None
    assert 150 < accepted < 350  # the comparison is of both kinds


def test_mutated_files_give_a_table_or_a_reason(read):
    """No crash, no hang, and the same answer from both readers."""
    rng = random.Random(1)
    originals = [random_file(rng) for _ in range(20)]
    originals.append(smf(*[track(*[b"\x01" + ON] * 200)] * 4))
    for _ in range(3000):
        data = rng.choice(originals)
        for _ in range(rng.randint(1, 4)):
            data = mutated(rng, data) or b"\x00"
        assert read_rows(read, data) == read_rows(read_midi, data)


def test_many_open_notes_do_not_make_reading_quadratic(read):
    """200,000 notes that wait under one program, and as many offs under another, take a moment."""
    count = 200_000
    data = smf(
        track(b"\x00\x90\x3c\x64" + b"\x00\x3c\x64" * count, b"\x00\xc0\x01\x00\x80\x3c\x00" + b"\x00\x3c\x00" * count)
    )
    assert len(read(data)) == count + 1


@pytest.mark.parametrize("exponent", range(64))
def test_time_signatures_are_refused_where_their_logarithm_is_not_exact(exponent):
    data = smf(track(b"\x00\xff\x58\x04\x04" + bytes([exponent, 24, 8]), ONE_NOTE[8:]))
    if exponent in (29, 31, 39, 47, 51, 55, 58, 59, 62):  # math.log(2**k, 2) % 1, by the GNU C library
        with pytest.raises(MidiError, match="denominator"):
            read_midi(data)
    else:
        assert rows(read_midi(data)) == ONE_ROW


# ------------------------------------------------------------------------------------------------------------ writing


def table_of(*notes: tuple[int, int, int, int], **maps: np.ndarray) -> NoteTable:
    """A table of (onset, duration, note, velocity)."""
    columns = np.array(sorted(notes, key=lambda note: note[0]), np.int64).reshape(-1, 4).T
    return NoteTable(*(column.astype(np.int32) for column in columns[:3]), columns[3].astype(np.uint8), **maps)


def random_table(rng: np.random.Generator, programs: list[int], overlap: bool) -> NoteTable:
    """Notes of 1 to 999 ticks; equal notes follow each other, often at once, or also overlap (at most three deep)."""
    notes = []
    for program in programs:
        for pitch in rng.choice(128, 4, replace=False):
            ends = [0] * (1 if not overlap else 3)
            for i in range(6):
                lane = i % len(ends)
                onset = ends[lane] + int(rng.choice([0, 0, 1, 700]))
                duration = int(rng.choice([1, 2, 30, 999]))
                ends[lane] = onset + duration
                notes.append((onset, duration, 128 * program + int(pitch), int(rng.integers(1, 128))))
    return table_of(*notes)


def with_tempos(table: NoteTable, tempos: list[list[int]]) -> NoteTable:
    columns = (table.onsets, table.durations, table.notes, table.velocities)
    return NoteTable(*columns, np.array(tempos, np.int64), np.array([[0, 3, 4], [77, 6, 8]], np.int32))


def assert_same(written: NoteTable, table: NoteTable) -> None:
    """Equal but for the order of notes that begin together."""
    assert Counter(rows(written)) == Counter(rows(table))


def messages_by_time(data: bytes) -> list[tuple[float, mido.Message]]:
    now = 0.0
    found = []
    for message in mido.MidiFile(file=io.BytesIO(data)):
        now += message.time
        found.append((now, message))
    return found


def cut_notes(data: bytes) -> int:
    """Notes struck while the same key of the same channel is down, or ended as soon as they begin."""
    down: dict[tuple[int, int], float] = {}
    cut = 0
    for now, message in messages_by_time(data):
        if message.type == "note_on":
            cut += (message.channel, message.note) in down
            down[message.channel, message.note] = now
        elif message.type == "note_off":
            cut += down.pop((message.channel, message.note)) == now
    assert not down
    return cut


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("programs", [[0], [0, 40, 128], [*range(15), 128]])
def test_written_notes_read_back(seed, programs):
    table = random_table(np.random.default_rng(seed), programs, overlap=False)
    data = write_midi(table)
    assert_same(read_midi(data), table)
    assert cut_notes(data) == 0


@pytest.mark.parametrize("seed", range(6))
def test_overlapping_equal_pitches_take_channels_of_their_own(seed):
    table = random_table(np.random.default_rng(seed), [0, 3, 40], overlap=True)
    data = write_midi(table)
    assert_same(read_midi(data), table)
    assert cut_notes(data) == 0


def test_overlapping_drums_stay_on_their_channel_and_each_note_ends():
    kick = 128 * 128 + 36
    table = table_of((0, 90, kick, 1), (0, 30, kick, 2), (20, 40, kick, 3))
    data = write_midi(table)
    assert {m.channel for _, m in messages_by_time(data) if m.type == "note_on"} == {9}
    # The offs at 30, 60 and 90 end the ons in their order; those that begin together were put in order of end.
    assert Counter(rows(read_midi(data))) == Counter([(0, 30, kick, 2), (0, 60, kick, 1), (20, 70, kick, 3)])


TEMPO_MAPS = [
    [[0, 500_000]],
    [[0, 468_750]],
    [[0, 600_001], [33, 333_333], [34, 1_999_999], [1200, 20_000]],
    [[0, 500_000], [100, 0xFFFFFF], [101, 10_000], [102, 0xFFFFFF], [2000, 500_000]],
    [[5, 612_345], [40, 500_000]],
]


@pytest.mark.parametrize("tempos", TEMPO_MAPS)
@pytest.mark.parametrize("seed", range(3))
def test_notes_keep_their_times_under_any_tempo_map(tempos, seed):
    table = with_tempos(random_table(np.random.default_rng(seed), [0, 7, 128], overlap=False), tempos)
    read = read_midi(write_midi(table))
    assert_same(read, table)
    assert read.tempos.tolist() == ([] if tempos[0][0] == 0 else [[0, 500_000]]) + tempos
    assert read.meters.tolist() == [[0, 3, 4], [77, 6, 8]]


def test_tempos_that_no_tick_can_have_are_left_out():
    table = with_tempos(table_of((0, 10, 60, 90), (500, 10, 60, 90)), [[0, 0], [20, 400_000], [100, 9_999]])
    read = read_midi(write_midi(table))
    assert_same(read, table)
    assert read.tempos.tolist() == [[0, 500_000], [20, 400_000]]


def test_notes_of_no_length_get_one_tick():
    table = table_of((5, 0, 60, 90), (5, 0, 188, 91), (6, 0, 60, 92))
    data = write_midi(table)
    assert Counter(rows(read_midi(data))) == Counter([(5, 1, 60, 90), (5, 1, 188, 91), (6, 1, 60, 92)])
    assert cut_notes(data) == 0


@pytest.mark.parametrize("melodic", [16, 20, 128])
def test_more_programs_than_channels_share_the_channels_of_the_least_played(melodic):
    notes = [(10 * i, 15, 128 * program + 60, 80) for i, program in enumerate(range(melodic))]
    notes += [(50 * i, 30, 128 * 0 + 70, 80) for i in range(40)] + [(3, 5, 128 * 128 + 36, 80)]
    table = table_of(*notes)
    data = write_midi(table)
    assert_same(read_midi(data), table)
    channels = defaultdict(set)
    program_of: dict[int, int] = {}
    for _, message in messages_by_time(data):
        if message.type == "program_change":
            program_of[message.channel] = message.program
        elif message.type == "note_on":
            channels[message.channel].add(program_of[message.channel])
    assert channels.pop(9) == {0}  # the drum kit, alone
    assert sum(map(len, channels.values())) == melodic
    assert [programs for programs in channels.values() if 0 in programs] == [{0}]  # the most played keeps its own
    assert len(channels) == 15


def test_tracks_are_named_and_the_file_says_what_a_person_expects():
    file = mido.MidiFile(file=io.BytesIO(write_midi(table_of((0, 50, 128 * 40 + 60, 80), (0, 50, 16420, 80)))))
    assert (file.type, file.ticks_per_beat) == (1, 50)
    assert [t.name for t in file.tracks] == ["", PROGRAM_NAMES[40], "Drums"]
    assert [m.tempo for m in file.tracks[0] if m.type == "set_tempo"] == [500_000]
    assert [(m.channel, m.program) for m in file if m.type == "program_change"] == [(0, 40), (9, 0)]


def test_an_empty_table_is_a_valid_file():
    file = mido.MidiFile(file=io.BytesIO(write_midi(table_of())))
    assert [message.type for message in file] == ["set_tempo", "end_of_track"]


def test_the_latest_onset_that_a_table_holds_is_written():
    table = table_of((2**31 - 1, 999, 60, 127))
    assert_same(read_midi(write_midi(table)), table)
