"""Standard MIDI Files written byte by byte."""

from midillm_jax.music.score import Score, read_score, variable_length

BEAT = 480
"""Ticks."""
END = b"\x00\xff\x2f\x00"


def track(*events: bytes) -> bytes:
    """A chunk of events with their delta times."""
    body = b"".join(events)
    return b"MTrk" + len(body).to_bytes(4, "big") + body


def timed(*events: tuple[int, bytes]) -> bytes:
    """A chunk of (tick, message), in any order of ticks, and an end of track."""
    at, parts = 0, []
    for tick, message in sorted(events, key=lambda event: event[0]):
        parts.append(variable_length(tick - at) + message)
        at = tick
    return track(*parts, END)


def smf(*tracks: bytes, form: int = 1, division: int = 480, count: int | None = None) -> bytes:
    fields = (form, len(tracks) if count is None else count, division % 65536)
    return b"MThd\x00\x00\x00\x06" + b"".join(field.to_bytes(2, "big") for field in fields) + b"".join(tracks)


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(numerator: int, denominator: int) -> bytes:
    return bytes((0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8))


ONE_NOTE = timed((0, b"\x90\x3c\x64"), (480, b"\x80\x3c\x00"))


def note(on: int, off: int, pitch: int = 60, channel: int = 0, velocity: int = 100) -> tuple[tuple[int, bytes], ...]:
    """The events of a note; ticks."""
    return (on, bytes((0x90 | channel, pitch, velocity))), (off, bytes((0x80 | channel, pitch, 0)))


def program(tick: int, number: int, channel: int = 0) -> tuple[int, bytes]:
    return tick, bytes((0xC0 | channel, number))


def name(text: str) -> tuple[int, bytes]:
    return 0, b"\xff\x03" + bytes([len(text)]) + text.encode()


def song(*tracks: tuple, form: int = 1) -> Score:
    return read_score(smf(*(timed(*events) for events in tracks), form=form), "song.mid")


BAND = song(
    (name("Left hand"), *note(0, 480, 48, 0)),
    (name("Right hand"), *note(0, 480, 72, 0)),
    (name("Bass, fretless"), program(0, 35, 1), *note(0, 480, 40, 1)),
    (name("Bass"), program(0, 52, 2), *note(0, 480, 50, 2)),
    (name("Kit"), *note(0, 480, 36, 9)),
)
