"""The small band that plays by rule: .mid files, exact captions and music text, for tests, the demo and checks.

Nothing here was learned or copied: styles, grooves and progressions are the tables of band/styles.py, and a seed
picks among them. Results about music come from real pieces.
"""

import io
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import mido

from midillm_jax.data.band.compose import ROLES, UNITS_PER_QUARTER, BandPiece, Profile, draw
from midillm_jax.data.band.texts import document
from midillm_jax.data.band.words import row
from midillm_jax.errors import UserError
from midillm_jax.music.instruments import PROGRAM_NAMES

_TICKS_PER_BEAT = (96, 120, 192, 240, 384, 480, 960)
_CHANNELS = {"melody": 0, "chords": 1, "bass": 2, "drums": 9}


@dataclass(frozen=True)
class BandReport:
    """What was written."""

    pieces: int
    with_drums: int
    notes: int
    seconds: float
    """Of music, all pieces together."""
    documents: int


def write_band(
    out: Path, pieces: int, seed: int, *, profile: Profile = "full", documents: int | None = None
) -> BandReport:
    """Writes ``out/captions.jsonl``, the ``out/midi/*.mid`` that it names, and ``out/text/*.txt``.

    Piece i depends on the profile, the seed and i alone. There are as many text documents as pieces unless said; none
    of them is about a piece of the folder. The folder appears under its name once it is complete.

    Raises:
        UserError: fewer than one piece was asked for, or ``out`` is there already.
    """
    if pieces < 1:
        raise UserError(f"The band was asked for {pieces} pieces; ask for at least one.")
    if out.exists():
        raise UserError(f"{out} is there already; the band writes a new folder: name another one or delete this one.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "midi").mkdir(parents=True)
    (partial / "text").mkdir()
    documents = pieces if documents is None else documents
    with_drums = notes = 0
    seconds = 0.0
    with (partial / "captions.jsonl").open("w", encoding="utf-8", newline="\n") as captions:
        for index in range(pieces):
            rng = random.Random(f"piece {profile} {seed} {index}")
            piece = draw(rng, profile)
            location = f"midi/{index:05d}-{piece.style.name.replace(' ', '-')}.mid"
            (partial / location).write_bytes(midi_bytes(piece, rng.choice(_TICKS_PER_BEAT)))
            captions.write(json.dumps(row(rng, piece, profile, location), ensure_ascii=False) + "\n")
            with_drums += "drums" in piece.programs
            notes += len(piece.notes)
            seconds += piece.duration
    for index in range(documents):
        text = document(random.Random(f"text {profile} {seed} {index}"), profile)
        (partial / "text" / f"{index:05d}.txt").write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, out)
    return BandReport(pieces, with_drums, notes, seconds, documents)


def midi_bytes(piece: BandPiece, ticks_per_beat: int) -> bytes:
    """A Standard MIDI File of type 1: a conductor's track, then one a role. ``ticks_per_beat`` is a multiple of 24."""
    scale, rest = divmod(ticks_per_beat, UNITS_PER_QUARTER)
    if rest:
        raise ValueError(f"{ticks_per_beat} ticks a beat cannot hold {UNITS_PER_QUARTER} units")
    numerator, denominator = piece.style.meter
    conductor = mido.MidiTrack(
        [
            mido.MetaMessage("track_name", name=f"{piece.style.name} in {piece.key.name}"),
            mido.MetaMessage("set_tempo", tempo=piece.tempo),
            mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator),
            mido.MetaMessage("key_signature", key=piece.key.signature),
            mido.MetaMessage("end_of_track"),
        ]
    )
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat, tracks=[conductor])
    for role in ROLES:
        if role in piece.programs:
            file.tracks.append(_track(piece, role, scale))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _track(piece: BandPiece, role: str, scale: int) -> mido.MidiTrack:
    program, channel = piece.programs[role], _CHANNELS[role]
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=f"{role.capitalize()}: {PROGRAM_NAMES[program]}")])
    # The drum kit is chosen by its channel; program 0 of channel 10 is the standard kit.
    track.append(mido.Message("program_change", channel=channel, program=program % 128))
    events = []
    for note in piece.notes:
        if note.role == role:
            events.append((note.end * scale, "note_off", note.pitch, 64))
            events.append((note.start * scale, "note_on", note.pitch, note.velocity))
    # At one tick "note_off" sorts before "note_on", so that a repeated note sounds again.
    now = 0
    for tick, kind, pitch, velocity in sorted(events):
        track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track"))
    return track
