"""MIDI files: bytes to a table of notes, and a table of notes to bytes.

Reading follows mido 1.3.3 and the ``anticipation`` package exactly (the loops stand in ``midi_kernel.py``), so that
the tokens of a file are those the published checkpoints were trained on. Writing is mido's work.
"""

import dataclasses
import functools
import importlib.util
import io

import mido
import numpy as np

from midillm_jax.music import midi_kernel as kernel
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, PROGRAMS, TICKS_PER_SECOND

DEFAULT_TEMPO = kernel.DEFAULT_TEMPO

DRUM_CHANNEL = 9
NOTE_OFF_VELOCITY = 64
_MELODIC_CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)
_COLUMNS = (np.int32, np.int32, np.int32, np.uint8)
"""Types of onsets, durations, notes and velocities."""
_WRITABLE_TEMPOS = (10_000, 0xFFFFFF)


class MidiError(ValueError):
    """Bytes that cannot be read as a MIDI file with notes: why, and at which byte."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)  # both, so that the error survives the way back from a worker process
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.reason} (byte {self.offset})"


def _default_tempos() -> np.ndarray:
    return np.array([[0, DEFAULT_TEMPO]], np.int64)


def _no_meters() -> np.ndarray:
    return np.zeros((0, 3), np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class NoteTable:
    """The notes of a piece in note-on order, and its map of tempos and meters. Times are in ticks of 10 ms."""

    onsets: np.ndarray
    """int32 [n], non-decreasing."""
    durations: np.ndarray
    """int32 [n], 0..999."""
    notes: np.ndarray
    """int32 [n], 128 * program + pitch; program 128 is the drum kit."""
    velocities: np.ndarray
    """uint8 [n], 1..127."""
    tempos: np.ndarray = dataclasses.field(default_factory=_default_tempos)
    """int64 [k, 2]: onset, microseconds per beat. The first row's onset is 0."""
    meters: np.ndarray = dataclasses.field(default_factory=_no_meters)
    """int32 [m, 3]: onset, numerator, denominator."""

    def __len__(self) -> int:
        return len(self.onsets)

    def programs(self) -> tuple[int, ...]:
        """The programs that play, in order of their first note."""
        programs, first = np.unique(self.notes // PITCHES, return_index=True)
        return tuple(programs[np.argsort(first)].tolist())

    def seconds(self) -> float:
        """When the last note ends."""
        return float((self.onsets + self.durations).max()) / TICKS_PER_SECOND if len(self) else 0.0


_REASONS = {
    kernel.TRUNCATED: "the file ends where a chunk was expected; it is cut short or names more tracks than it has",
    kernel.NOT_MIDI: "the file does not begin with MThd, so it is not a standard MIDI file",
    kernel.HEADER_SHORT: "the header chunk is shorter than its six bytes",
    kernel.ASYNCHRONOUS: "the file is of type 2, whose tracks are separate pieces; export it as type 0 or 1",
    kernel.NOT_A_TRACK: "a chunk that is not MTrk stands where track {track} was expected",
    kernel.TRACK_TOO_LONG: "track {track} is said to be longer than the rest of the file",
    kernel.OVERRUN: "an event of track {track} runs past the end of the track",
    kernel.NO_STATUS: "track {track} has data byte 0x{byte:02x} before any status byte",
    kernel.UNDEFINED_STATUS: "track {track} has undefined status byte 0x{byte:02x}",
    kernel.STRAY_DATA: "track {track} has data byte 0x{byte:02x} after a message that takes none",
    kernel.HIGH_DATA_BYTE: "track {track} has byte 0x{byte:02x} where a data byte (below 0x80) was expected",
    kernel.PAYLOAD_TOO_LONG: f"track {{track}} has a message longer than {kernel.MAX_PAYLOAD_BYTES:,} bytes",
    kernel.SYSEX_HIGH_BYTE: "track {track} has byte 0x{byte:02x} inside a system exclusive message",
    kernel.META_SHORT: "track {track} has a meta event with too few bytes",
    kernel.BAD_DENOMINATOR: "track {track} has a time signature whose denominator cannot be read",
    kernel.BAD_KEY: "track {track} has a key signature that does not exist",
    kernel.BAD_SMPTE_OFFSET: "track {track} has an SMPTE offset that is no time of day",
    kernel.NO_CLOCK: "the header's time division is SMPTE or zero; only ticks per beat can be read",
    kernel.TOO_LATE: f"a note begins later than {kernel.MAX_ONSET // TICKS_PER_SECOND:,} seconds",
}


@functools.cache
def has_numba() -> bool:
    """Whether the reader can be compiled: numba is installed, as the extra [train] brings it."""
    return importlib.util.find_spec("numba") is not None


def read_midi(data: bytes, *, compiled: bool = False) -> NoteTable:
    """Reads the notes of a standard MIDI file of type 0 or 1.

    ``compiled`` is for a caller with many files: the loops are then compiled by numba where it is installed (some
    seconds once, afterwards from a cache; about 50 times as fast). The table is the same either way.

    Raises :class:`MidiError` where the reference package refuses the file, and where an onset exceeds int32.
    """
    compiled = compiled and has_numba()
    scan, pair = kernel.kernels(compiled)
    bytes_ = np.frombuffer(data, np.uint8) if compiled else data
    capacity = len(data) // 2 + 1
    ticks, words = _buffer(compiled, capacity, np.int64), _buffer(compiled, capacity, np.int64)
    counts = _buffer(compiled, 7, np.int64)
    error, at, track = scan(bytes_, ticks, words, counts)
    if error:
        raise _error(error, at, track, data)
    count, division, last_tick, notes, program_changes, tempos, meters = counts.tolist() if compiled else counts

    # The clock sees all tracks at once: by tick, then track, then place in the track.
    order = np.argsort(ticks[:count], kind="stable") if compiled else sorted(range(count), key=ticks.__getitem__)
    queues = PITCHES * min(16 * PROGRAMS, 16 + program_changes)
    state = [
        _buffer(compiled, 16, np.int32, 0),
        *(_buffer(compiled, length, np.int32, -1) for length in (16, 16 * PROGRAMS, queues)),
        *(_buffer(compiled, length, np.int32) for length in (queues, notes)),
        _buffer(compiled, notes, np.float64),
    ]
    columns = [_buffer(compiled, notes, dtype) for dtype in _COLUMNS]
    changes = [_buffer(compiled, 2 + 2 * tempos, np.int64), _buffer(compiled, 3 * meters, np.int32)]
    error, at, tempos, meters = pair(ticks, words, order, division, last_tick, *state, *columns, *changes)
    if error:
        raise _error(error, at, 0, data)
    if not notes:
        raise MidiError("the file has no notes", len(data))
    onsets, durations, note_ids, velocities = map(np.asarray, columns, _COLUMNS)
    tempo_map = np.asarray(changes[0][: 2 * tempos], np.int64).reshape(-1, 2)
    meter_map = np.asarray(changes[1][: 3 * meters], np.int32).reshape(-1, 3)
    return NoteTable(onsets, durations, note_ids, velocities, tempo_map, meter_map)


def _buffer(compiled: bool, length: int, dtype: type, value: int | None = None) -> kernel.Buffer:
    """What a kernel fills; of ``value``, if one is given."""
    if not compiled:
        return [value or 0] * length
    buffer: np.ndarray = np.empty(length, dtype)
    if value is not None:
        buffer.fill(value)
    return buffer


def _error(code: int, at: int, track: int, data: bytes) -> MidiError:
    byte = data[at] if at < len(data) else 0
    return MidiError(_REASONS[code].format(track=track + 1, byte=byte), at)


def _changes(rows: np.ndarray) -> np.ndarray:
    """Rows of (onset, value...) sorted by onset: the last of each onset, where it differs from the row before."""
    last = np.append(rows[1:, 0] != rows[:-1, 0], True)[: len(rows)]
    rows = rows[last]
    differs = np.append(True, (rows[1:, 1:] != rows[:-1, 1:]).any(1))[: len(rows)]
    return rows[differs]


def write_midi(table: NoteTable) -> bytes:
    """Writes a type 1 file: a track of tempos and meters, then one track a program in order of first note.

    Reading the file again gives the table's notes, as long as equal pitches of a program do not overlap beyond the
    channels there are. What differs by intent: a note of no length gets one tick; tempos under 10 ms a beat, which
    cannot be written as ticks, are left out (the notes keep their times).

    - At equal ticks note-offs come first, so that a repeated note is struck again.
    - Every program has a channel; drums are on channel 9 (10 by a musician's count). Channels left over take notes
      that overlap an equal pitch of their own program, which one channel could not end separately. Where none is
      left, the first off ends the first on.
    - From the sixteenth melodic program on, the programs with the fewest notes share channels. There each group of
      simultaneous events begins with its program change. Ports are not used: synthesizers ignore them.
    """
    ticks_per_beat, tempos = _clock(table.tempos)
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat)
    conductor = [(int(tick), mido.MetaMessage("set_tempo", tempo=int(tempo))) for tick, _, tempo in tempos]
    meter_ticks = _midi_ticks(table.meters[:, 0], tempos, ticks_per_beat)
    for tick, (_, numerator, denominator) in zip(meter_ticks.tolist(), table.meters.tolist(), strict=True):
        conductor.append((tick, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)))
    file.tracks.append(_track(sorted(conductor, key=lambda event: event[0])))

    ends = table.onsets.astype(np.int64) + np.maximum(table.durations, 1)
    # Equal pitches that begin together are struck in the order in which they end, so that first off, first on holds.
    order = np.lexsort((ends, table.onsets))
    channels, shared = _channels(table, order, ends)
    on_ticks = _midi_ticks(table.onsets, tempos, ticks_per_beat)
    off_ticks = _midi_ticks(ends, tempos, ticks_per_beat)
    programs, pitches = table.notes // PITCHES, table.notes % PITCHES
    for program in table.programs():
        chosen = order[programs[order] == program]
        # (tick, off before on, index of the note)
        events = [(int(off_ticks[i]), 0, int(i)) for i in chosen] + [(int(on_ticks[i]), 1, int(i)) for i in chosen]
        events.sort(key=lambda event: event[:2])
        patch = 0 if program == DRUM_PROGRAM else program
        lanes = dict.fromkeys(int(channels[i]) for i in chosen)
        messages = [(0, mido.MetaMessage("track_name", name=PROGRAM_NAMES[program]))]
        messages += [(0, mido.Message("program_change", channel=lane, program=patch)) for lane in lanes]
        previous = -1
        for tick, is_on, i in events:
            channel, pitch = int(channels[i]), int(pitches[i])
            if channel in shared and tick != previous:
                messages.append((tick, mido.Message("program_change", channel=channel, program=patch)))
            previous = tick
            kind, velocity = ("note_on", int(table.velocities[i])) if is_on else ("note_off", NOTE_OFF_VELOCITY)
            messages.append((tick, mido.Message(kind, channel=channel, note=pitch, velocity=velocity)))
        file.tracks.append(_track(messages))
    return save_midi(file)


def save_midi(file: mido.MidiFile) -> bytes:
    """The bytes of a mido file."""
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def _track(events: list[tuple[int, mido.messages.BaseMessage]]) -> mido.MidiTrack:
    track = mido.MidiTrack()
    previous = 0
    for tick, message in events:
        message.time = tick - previous
        track.append(message)
        previous = tick
    return track


def _clock(tempos: np.ndarray) -> tuple[int, np.ndarray]:
    """Ticks per beat, and the writable tempos as float64 rows (MIDI tick, second it falls on, microseconds per beat).

    At the default tempo 50 ticks a beat are the 10 ms of the table. Otherwise a tick is at most 2.5 ms, so that an
    onset is at most 1.25 ms off and still reads back as the same 10 ms.
    """
    low, high = _WRITABLE_TEMPOS
    tempos = np.concatenate([_default_tempos(), tempos[(tempos[:, 1] >= low) & (tempos[:, 1] <= high)]])
    tempos = _changes(tempos)
    if len(tempos) == 1 and tempos[0, 1] == DEFAULT_TEMPO:
        return TICKS_PER_SECOND // 2, np.array([[0.0, 0.0, DEFAULT_TEMPO]])
    ticks_per_beat = 480
    while tempos[:, 1].max() > 2_500 * ticks_per_beat:
        ticks_per_beat *= 2
    clock = np.zeros((len(tempos), 3))
    clock[:, 2] = tempos[:, 1]
    for row in range(1, len(tempos)):
        before = clock[row - 1]
        seconds_per_tick = before[2] * 1e-6 / ticks_per_beat
        elapsed = np.rint((tempos[row, 0] / TICKS_PER_SECOND - before[1]) / seconds_per_tick)
        clock[row, :2] = before[0] + elapsed, before[1] + elapsed * seconds_per_tick
    return ticks_per_beat, clock


def _midi_ticks(onsets: np.ndarray, clock: np.ndarray, ticks_per_beat: int) -> np.ndarray:
    """The MIDI ticks nearest to onsets in 10 ms."""
    seconds = onsets / TICKS_PER_SECOND
    row = clock[np.maximum(np.searchsorted(np.rint(clock[:, 1] * TICKS_PER_SECOND), onsets, side="right") - 1, 0)]
    elapsed = np.rint((seconds - row[:, 1]) / (row[:, 2] * 1e-6 / ticks_per_beat))
    return (row[:, 0] + np.maximum(elapsed, 0)).astype(np.int64)


def _channels(table: NoteTable, order: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, set[int]]:
    """A channel for every note (int64 [n]), and the channels that several programs share."""
    melodic = [program for program in table.programs() if program != DRUM_PROGRAM]
    counts = np.bincount(table.notes // PITCHES, minlength=PROGRAMS)
    first: dict[int, int] = {DRUM_PROGRAM: DRUM_CHANNEL}
    shared: set[int] = set()
    if len(melodic) <= len(_MELODIC_CHANNELS):
        first.update(zip(melodic, _MELODIC_CHANNELS, strict=False))
    else:
        load = dict.fromkeys(reversed(_MELODIC_CHANNELS), 0)
        for program in sorted(melodic, key=lambda program: -counts[program]):
            channel = min(load, key=lambda channel: load[channel])
            if load[channel]:
                shared.add(channel)
            first[program] = channel
            load[channel] += int(counts[program])
    spare = list(_MELODIC_CHANNELS[len(melodic) :])

    lanes = {program: [channel] for program, channel in first.items()}
    busy: dict[int, list[int]] = {}  # note -> when each lane of its program has ended it
    channels = np.zeros(len(table), np.int64)
    for i in order.tolist():
        note, onset, end = int(table.notes[i]), int(table.onsets[i]), int(ends[i])
        program = note // PITCHES
        until = busy.setdefault(note, [])
        free = next((lane for lane, last in enumerate(until) if last <= onset), len(until))
        if free == len(until):
            if free == len(lanes[program]) and spare and program != DRUM_PROGRAM:
                lanes[program].append(spare.pop(0))
            if free < len(lanes[program]):
                until.append(0)
            else:  # a lane whose note ends first keeps first off, first on
                free = int(np.argmin(until))
        until[free] = max(until[free], end)
        channels[i] = lanes[program][free]
    return channels, shared
