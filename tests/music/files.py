"""Standard MIDI Files written byte by byte."""

from midillm_jax.music.score import variable_length

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
    fields = (form, len(tracks) if count is None else count, division)
    return b"MThd\x00\x00\x00\x06" + b"".join(field.to_bytes(2, "big") for field in fields) + b"".join(tracks)


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(numerator: int, denominator: int) -> bytes:
    return bytes((0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8))


ONE_NOTE = timed((0, b"\x90\x3c\x64"), (480, b"\x80\x3c\x00"))
