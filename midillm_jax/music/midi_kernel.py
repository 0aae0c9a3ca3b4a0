"""The two loops of the MIDI reader: bytes to messages, and messages on one clock to notes.

Both are written in the subset of Python that numba compiles: plain loops over flat buffers, an error code and a
byte offset for an answer. :func:`kernels` hands them out compiled (arrays in and out) or as they stand (``bytes`` and
lists, which plain Python indexes faster than arrays); the answer is the same. They live in a module of their own
because numba's cache is valid for as long as the module's file does not change.

The rules are those of mido 1.3.3 under the ``anticipation`` package, whose token lists were the training data of
the published checkpoints: what those accept, drop or refuse is accepted, dropped and refused here.
"""

import functools
from collections.abc import Callable
from typing import Any

# fmt: off
(
    OK, TRUNCATED, NOT_MIDI, HEADER_SHORT, ASYNCHRONOUS, NOT_A_TRACK, TRACK_TOO_LONG, OVERRUN,
    NO_STATUS, UNDEFINED_STATUS, STRAY_DATA, HIGH_DATA_BYTE, PAYLOAD_TOO_LONG, SYSEX_HIGH_BYTE,
    META_SHORT, BAD_DENOMINATOR, BAD_KEY, BAD_SMPTE_OFFSET, NO_CLOCK, TOO_LATE,
) = range(20)
# fmt: on
"""What the loops answer: well, or why not."""

NOTE_OFF, NOTE_ON, PROGRAM_CHANGE = 0x80, 0x90, 0xC0
TEMPO, METER, OTHER = 0x51, 0x58, 0
"""Kinds of message that :func:`scan` keeps; those of channel messages carry the channel in the low four bits."""

MAX_PAYLOAD_BYTES = 1_000_000
MAX_ONSET = 2**31 - 1
"""Of notes, tempos and meters, in 10 ms."""
MAX_DENOMINATOR_EXPONENT = 7
"""Meters over 128th notes, and those of no beats, are left out: no music has them."""
DEFAULT_TEMPO = 500_000
"""Microseconds per beat where a file says nothing: 120 beats a minute."""
UNCLOSED_DURATION = 25
"""Of a note whose note-off never comes, in 10 ms."""
MAX_DURATION = 999
"""In 10 ms."""
_LARGE = 1 << 54
_HUGE = 1 << 61
"""Ticks beyond this are counted as this many: no note so late can be stored, and the sum of two still fits int64."""
# math.log(2**k, 2) is not a whole number for these k, and mido refuses the time signature over it. A table, so that
# another C library's logarithm does not change which files are accepted.
# fmt: off
_REFUSED_EXPONENTS = (
    29, 31, 39, 47, 51, 55, 58, 59, 62, 78, 93, 94, 95, 101, 102, 109, 110, 116, 117, 118, 124, 125, 141, 156, 171, 179,
    186, 187, 188, 189, 190, 201, 202, 203, 204, 205, 217, 218, 219, 220, 221, 232, 233, 234, 235, 236, 247, 248, 249,
    250, 251,
)
# fmt: on

Buffer = Any
"""``bytes`` or a list in plain Python, a uint8 or int64 array when compiled."""


def scan(data: Buffer, ticks: Buffer, words: Buffer, counts: Buffer) -> tuple[int, int, int]:
    """Reads the messages of a MIDI file in file order.

    ``ticks`` (absolute, from the track's start) and ``words`` are filled, one entry a message; they must hold
    ``len(data) // 2 + 1`` entries, as no message is shorter than two bytes. A word holds, from the low bits up, 8 of
    the kind, 24 of what the message says (two data bytes, the first lowest; a tempo) and the offset of its data.
    Messages without a meaning here are kept as OTHER, once a tick and track, because every tick that holds a message
    is a step of the clock; ends of tracks are not. Filled too: ``counts`` [7], the number of messages, ticks per beat,
    last tick, and how many messages begin notes, change programs, set tempos, set meters.

    Returns (error, byte offset, track).
    """
    size = len(data)
    count = 0
    last_tick = 0
    notes = 0
    program_changes = 0
    tempos = 0
    meters = 0
    if size < 8:
        return TRUNCATED, size, 0
    if data[0] != 0x4D or data[1] != 0x54 or data[2] != 0x68 or data[3] != 0x64:  # "MThd"
        return NOT_MIDI, 0, 0
    header = (data[4] << 24) | (data[5] << 16) | (data[6] << 8) | data[7]
    if header < 6:
        return HEADER_SHORT, 4, 0
    if size < 14:
        return TRUNCATED, size, 0
    form = (data[8] << 8) | data[9]
    tracks = (data[10] << 8) | data[11]
    division = (data[12] << 8) | data[13]
    if form == 2:
        return ASYNCHRONOUS, 8, 0
    if tracks >= 0x8000:  # the fields are signed
        tracks = 0
    if division >= 0x8000:
        division -= 0x10000
    pos = 8 + header
    for track in range(tracks):
        if pos + 8 > size:
            return TRUNCATED, size, track
        if data[pos] != 0x4D or data[pos + 1] != 0x54 or data[pos + 2] != 0x72 or data[pos + 3] != 0x6B:  # "MTrk"
            return NOT_A_TRACK, pos, track
        end = pos + 8 + ((data[pos + 4] << 24) | (data[pos + 5] << 16) | (data[pos + 6] << 8) | data[pos + 7])
        # A track is over when exactly its size has been read, so a size past the end of the file cannot be met.
        if end > size:
            return TRACK_TOO_LONG, pos + 4, track
        pos += 8
        tick = 0
        running = 0
        seen = -1  # the tick of the last message kept
        while pos != end:
            # What most messages are, with as few branches as can be, for a mispredicted one costs more than the rest:
            # a delta of one or two bytes, a status byte or none, two data bytes. Anything else is left to what follows.
            if pos + 5 <= end:
                byte = data[pos] + 0
                second = data[pos + 1] + 0
                wide = byte >> 7
                at = pos + 1 + wide
                status = data[at] + 0
                if status < 0x80:
                    low = status
                    high = data[at + 1] + 0
                    status = running
                else:
                    at += 1
                    low = data[at] + 0
                    high = data[at + 1] + 0
                if 0x80 <= status < 0xF0 and status & 0xE0 != 0xC0 and low | high | (second * wide) < 0x80:
                    running = status
                    tick += ((byte & 0x7F) << (7 * wide)) | (second * wide)
                    if tick > _HUGE:
                        tick = _HUGE
                    is_note = 1 if status < 0xA0 else 0
                    notes += is_note & (status >> 4) & (1 if high > 0 else 0)
                    kept = is_note | (1 if tick != seen else 0)
                    ticks[count] = tick
                    words[count] = (at << 32) | (high << 16) | (low << 8) | (status * is_note)
                    count += kept
                    seen = tick
                    pos = at + 2
                    continue

            delta = 0
            while True:
                if pos >= end:
                    return OVERRUN, end, track
                byte = data[pos]
                pos += 1
                delta = _HUGE if delta >= _LARGE else (delta << 7) | (byte & 0x7F)
                if byte < 0x80:
                    break
            if pos >= end:
                return OVERRUN, end, track
            status = data[pos] + 0
            begin = pos
            is_running = status < 0x80
            if is_running:
                if running == 0:
                    return NO_STATUS, pos, track
                status = running
            else:
                pos += 1
                if status != 0xFF:  # a meta event leaves the running status as it was
                    running = status

            kind = OTHER
            said = 0
            at = pos
            keep = True
            if status < 0xF0 or status == 0xF1 or status == 0xF2 or status == 0xF3:
                short = 0xC0 <= status < 0xE0 or status == 0xF1 or status == 0xF3
                pos += 1 if short else 2
                if pos > end:
                    return OVERRUN, end, track
                if data[at] >= 0x80:
                    return HIGH_DATA_BYTE, at, track
                if not short and data[at + 1] >= 0x80:
                    return HIGH_DATA_BYTE, at + 1, track
                if status < 0xA0:
                    kind = status
                    said = data[at] + 256 * data[at + 1]
                    if status >= 0x90 and said >= 0x100:
                        notes += 1
                elif 0xC0 <= status < 0xD0:
                    kind = status
                    said = data[at] + 0
                    program_changes += 1
            elif status == 0xF4 or status == 0xF5 or status == 0xF9 or status == 0xFD:
                return UNDEFINED_STATUS, begin, track
            elif status == 0xF0 or status == 0xF7 or status == 0xFF:
                meta = -1
                if status == 0xFF:
                    if pos >= end:
                        return OVERRUN, end, track
                    meta = data[pos] + 0
                    pos += 1
                elif is_running:
                    pos += 1  # the data byte is lost and a new system exclusive message begins
                length = 0
                while True:
                    if pos >= end:
                        return OVERRUN, end, track
                    byte = data[pos]
                    pos += 1
                    length = _HUGE if length >= _LARGE else (length << 7) | (byte & 0x7F)
                    if byte < 0x80:
                        break
                if length > MAX_PAYLOAD_BYTES:
                    return PAYLOAD_TOO_LONG, begin, track
                at = pos
                pos += length
                if pos > end:
                    return OVERRUN, end, track
                if meta < 0:
                    low = at
                    high = pos
                    if low < high and data[low] == 0xF0:
                        low += 1
                    if low < high and data[high - 1] == 0xF7:
                        high -= 1
                    for i in range(low, high):
                        if data[i] >= 0x80:
                            return SYSEX_HIGH_BYTE, i, track
                elif meta == 0x00:
                    if length == 1:
                        return META_SHORT, begin, track
                elif meta == 0x20:
                    if length < 1:
                        return META_SHORT, begin, track
                elif meta == 0x2F:
                    keep = False
                elif meta == 0x51:
                    if length < 3:
                        return META_SHORT, begin, track
                    kind = TEMPO
                    said = 65_536 * data[at] + 256 * data[at + 1] + data[at + 2]
                    tempos += 1
                elif meta == 0x54:
                    if length < 5:
                        return META_SHORT, begin, track
                    if (data[at] >> 5) > 3 or data[at + 1] > 59 or data[at + 2] > 59 or data[at + 4] > 99:
                        return BAD_SMPTE_OFFSET, begin, track
                elif meta == 0x58:
                    if length < 4:
                        return META_SHORT, begin, track
                    if data[at + 1] in _REFUSED_EXPONENTS:
                        return BAD_DENOMINATOR, begin, track
                    kind = METER
                    said = data[at] + 256 * data[at + 1]
                    meters += 1
                elif meta == 0x59:
                    if length < 2:
                        return META_SHORT, begin, track
                    if 7 < data[at] < 249 or data[at + 1] > 1:
                        return BAD_KEY, begin, track
                elif not (0x01 <= meta <= 0x07 or meta == 0x09 or meta == 0x21 or meta == 0x7F):
                    delta = 0  # the delta time of an unknown meta event is lost
            elif is_running:
                return STRAY_DATA, begin, track

            tick += delta
            if tick > _HUGE:
                tick = _HUGE
            if keep and (kind != OTHER or tick != seen):
                seen = tick
                ticks[count] = tick
                words[count] = (at << 32) | (said << 8) | kind
                count += 1
        if tick > last_tick:
            last_tick = tick
    counts[0] = count
    counts[1] = division
    counts[2] = last_tick
    counts[3] = notes
    counts[4] = program_changes
    counts[5] = tempos
    counts[6] = meters
    return OK, 0, 0


def pair(
    ticks: Buffer,
    words: Buffer,
    order: Buffer,
    division: int,
    last_tick: int,
    programs: Buffer,
    queues: Buffer,
    numbers: Buffer,
    heads: Buffer,
    tails: Buffer,
    following: Buffer,
    seconds: Buffer,
    onsets: Buffer,
    durations: Buffer,
    notes: Buffer,
    velocities: Buffer,
    tempos: Buffer,
    meters: Buffer,
) -> tuple[int, int, int, int]:
    """Runs the clock over the messages in ``order`` and joins note-ons with their note-offs.

    Open notes wait in queues, first in first out, one for each (channel, program, pitch). ``programs`` [16] of 0 and
    ``queues`` [16] of -1 are each channel's program and its first queue (of 128; -1: no note yet), ``numbers``
    [16 x 129] of -1 is the first queue of each (channel, program). ``heads`` [queues] of -1, ``tails`` [queues] and
    ``following`` [notes] link the notes of a queue, and ``seconds`` [notes] is when they begin.

    Filled, with times in 10 ms: ``onsets``, ``durations``, ``notes`` (128 * program + pitch) and ``velocities``;
    ``tempos`` (tick, microseconds per beat) x [1 + tempo messages] and ``meters`` (tick, numerator, denominator) x
    [meter messages] where they change.

    Returns (error, byte offset, rows of tempos, rows of meters).
    """
    tempo = DEFAULT_TEMPO
    # This order of operations, in double precision, is what the reference computes.
    seconds_per_tick = tempo * 1e-6 / division if division else 0.0
    time = 0.0
    last = 0
    begun = 0
    used = 0
    programs[9] = 128  # drums, whatever the program
    tempos[0] = 0
    tempos[1] = DEFAULT_TEMPO
    tempo_rows = 1
    meter_rows = 0
    for place in range(len(order)):
        message = order[place]
        tick = ticks[message]
        if division <= 0 and tick != last and (division == 0 or tempo > 0):
            return NO_CLOCK, 12, 0, 0
        time += (tick - last) * seconds_per_tick  # no step adds nothing, which is faster than to ask
        last = tick
        word = words[message]
        kind = word & 0xFF
        if NOTE_OFF <= kind < NOTE_OFF + 32:
            channel = kind & 0x0F
            pitch = (word >> 8) & 0x7F
            velocity = (word >> 16) & 0x7F
            queue = queues[channel]
            if kind >= NOTE_ON and velocity > 0:
                if 100 * time >= MAX_ONSET + 0.5:
                    return TOO_LATE, word >> 32, 0, 0
                program = programs[channel]
                if queue < 0:
                    queue = used
                    queues[channel] = queue
                    numbers[129 * channel + program] = queue
                    used += 128
                seconds[begun] = time
                onsets[begun] = round(100 * time)  # half to even
                durations[begun] = UNCLOSED_DURATION
                notes[begun] = 128 * program + pitch
                velocities[begun] = velocity
                following[begun] = -1
                if heads[queue + pitch] < 0:
                    heads[queue + pitch] = begun
                else:
                    following[tails[queue + pitch]] = begun
                tails[queue + pitch] = begun
                begun += 1
            elif queue >= 0:
                note = heads[queue + pitch]
                if note >= 0:
                    length = 100 * (time - seconds[note])
                    durations[note] = MAX_DURATION if length >= MAX_DURATION else round(length)
                    heads[queue + pitch] = following[note]
        elif kind >= PROGRAM_CHANGE:
            channel = kind & 0x0F
            if channel != 9:
                programs[channel] = (word >> 8) & 0x7F
                queues[channel] = numbers[129 * channel + programs[channel]]
        elif kind == TEMPO:
            tempo = (word >> 8) & 0xFFFFFF
            seconds_per_tick = tempo * 1e-6 / division if division else 0.0
            if 100 * time < MAX_ONSET + 0.5:
                onset = round(100 * time)
                if tempos[2 * tempo_rows - 2] != onset:  # else the last of a tick holds
                    if tempo_rows > 1 and tempos[2 * tempo_rows - 1] == tempos[2 * tempo_rows - 3]:
                        tempo_rows -= 1
                    tempo_rows += 1
                tempos[2 * tempo_rows - 2] = onset
                tempos[2 * tempo_rows - 1] = tempo
        elif kind == METER:
            numerator = (word >> 8) & 0xFF
            exponent = (word >> 16) & 0xFF
            if 100 * time < MAX_ONSET + 0.5 and numerator > 0 and exponent <= MAX_DENOMINATOR_EXPONENT:
                onset = round(100 * time)
                end = 3 * meter_rows
                if meter_rows == 0 or meters[end - 3] != onset:
                    if meter_rows > 1 and meters[end - 2] == meters[end - 5] and meters[end - 1] == meters[end - 4]:
                        meter_rows -= 1
                    meter_rows += 1
                meters[3 * meter_rows - 3] = onset
                meters[3 * meter_rows - 2] = numerator
                meters[3 * meter_rows - 1] = 1 << exponent
    # The silence before the final end of track is a step of the clock too, though no note can see it.
    if last_tick > last and division <= 0 and (division == 0 or tempo > 0):
        return NO_CLOCK, 12, 0, 0
    if tempo_rows > 1 and tempos[2 * tempo_rows - 1] == tempos[2 * tempo_rows - 3]:
        tempo_rows -= 1
    end = 3 * meter_rows
    if meter_rows > 1 and meters[end - 2] == meters[end - 5] and meters[end - 1] == meters[end - 4]:
        meter_rows -= 1
    return OK, 0, tempo_rows, meter_rows


@functools.cache
def kernels(compiled: bool) -> tuple[Callable[..., tuple[int, ...]], Callable[..., tuple[int, ...]]]:
    """:func:`scan` and :func:`pair`; compiled needs numba, takes seconds at the first call and is cached on disk."""
    if not compiled:
        return scan, pair
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(scan), numba.njit(cache=True, nogil=True)(pair)
    except RuntimeError:  # nowhere to write the cache: a read-only installation without a home directory
        return numba.njit(nogil=True)(scan), numba.njit(nogil=True)(pair)
