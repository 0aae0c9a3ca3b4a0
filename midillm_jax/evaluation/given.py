"""Music that somebody else made, scored without a model: another system's .mid files, beside captions and real music.

What needs no model is scored as :mod:`~midillm_jax.evaluation.protocol` scores it, with the same page and results.json.
The notes of each file are written to pieces/000.mid and so on, so that the folder stands by itself and what is heard
there is what was scored.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from midillm_jax.data.shards import Piece
from midillm_jax.errors import UserError
from midillm_jax.evaluation import (
    audio,
    further,
    inputs,
    midi_folders,
    music_scores,
    piece_table,
    protocol,
    report,
    shown,
)
from midillm_jax.evaluation.generation import DERIVED, FOLDER, Generated, remove_others
from midillm_jax.evaluation.inputs import Prompt
from midillm_jax.evaluation.midi_folders import MidiFolder, References
from midillm_jax.evaluation.protocol import Outcome, Tell
from midillm_jax.files import write_whole
from midillm_jax.music.midi import write_midi


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is evaluated, and how."""

    generated: Path
    captions: Path | None
    references: Path | None
    data: Path | None
    out: Path
    most_references: int
    seed: int
    show: int
    audio: audio.Settings


def evaluate(settings: Settings, tell: Tell) -> Outcome:
    """Scores a folder of .mid files, or finds that it was done.

    Raises:
        UserError: a folder or file is missing or does not fit.
    """
    if settings.most_references < 1 or settings.show < 0 or settings.seed < 0:
        raise UserError(
            f"--most-references {settings.most_references} --show {settings.show} --seed {settings.seed}: expected 1 "
            "or more, and 0 or more of the others"
        )
    if settings.references is not None and settings.data is not None:
        raise UserError("--references and --data both name real music; give one of them")
    found = midi_folders.read_midi_folder(
        settings.generated, settings.captions, lambda done, total: tell("reading the files", done, total)
    )
    real = read_references(settings, tell)
    listener = audio.listener(settings.audio, settings.out)
    audio.require_enough(
        listener, len(found.pieces), len(real.pieces), sum(bool(piece.captions) for piece in found.pieces)
    )
    silence = shown.no_audio()
    decisive = {
        "format": protocol.FORMAT,
        "generated": found.digest,
        "references": real.digest,
        "seed": settings.seed,
        "show": settings.show,
        "audio": silence is None,
        "audio_scores": None if listener is None else listener.to_json(),
    }
    key = inputs.fingerprint(decisive)
    before = protocol.finished(settings.out, key)
    if before is not None:
        return before
    protocol.make_folder(settings.out)

    generated = _written(found.pieces, settings.out)
    asked = [piece for piece in generated if piece.prompt.text]
    drums, instruments = music_scores.symbolic_scores(asked, settings.seed) if asked else (None, None)
    music = music_scores.score(
        generated, asked, real.pieces, settings.seed, lambda done, total: tell("listening", done, total)
    )
    more = further.score_given(generated, asked, real.pieces, music, settings.seed)
    sound = None
    if listener is not None:
        sound = audio.score(listener, generated, asked, real.pieces, real.digest, settings.seed, tell)
    pieces, problems = shown.draw_and_play(generated, settings.show, silence, tell)
    notes = [*_left_out(found, real, len(asked)), *problems]
    page = report.Report(
        facts=_facts(settings, real),
        likelihood=None,
        drums=drums,
        instruments=instruments,
        music=music,
        runs=(),
        pieces=pieces,
        notes=notes,
        audio=sound,
        further=more.sections(),
    )
    write_whole(settings.out / protocol.PAGE, report.render(page, settings.out))
    lines = (
        f"{len(generated)} pieces scored beside {len(real.pieces)} real ones; {len(asked)} of them have a caption",
        *(() if drums is None else (drums.line("prompt"),)),
        *more.lines(),
        *(() if sound is None else sound.lines()),
    )
    rows = [
        protocol.piece_json(piece, signs, frozenset())
        for piece, signs in zip(pieces, more.failed.of_piece, strict=True)
    ]
    write_whole(settings.out / piece_table.NAME, piece_table.table(rows, music.measured))
    results = {
        "key": key,
        "inputs": decisive,
        "lines": lines,
        "bits_per_note": None,
        "drums_as_asked": None if drums is None else drums.to_json(),
        "instruments_as_asked": None if instruments is None else instruments.to_json(),
        "music": music.to_json(),
        "audio_scores": None if sound is None else sound.to_json(),
        "further": more.to_json(),
        "passed_over": {"unreadable": len(found.refused), "captions_without_file": len(found.without_file)},
        "notes": notes,
        "pieces": rows,
    }
    write_whole(settings.out / protocol.RESULTS, json.dumps(results, indent=1) + "\n")
    return Outcome(settings.out / protocol.PAGE, lines, done_before=False)


def read_references(settings: Settings, tell: Tell) -> References:
    """The real music that was named, if any was."""
    if settings.references is not None:
        return midi_folders.folder_references(
            settings.references,
            settings.most_references,
            settings.seed,
            lambda done, total: tell("reading the references", done, total),
        )
    if settings.data is not None:
        return midi_folders.split_references(settings.data, settings.most_references, settings.seed)
    return midi_folders.no_references()


def _written(pieces: Sequence[Piece], out: Path) -> list[Generated]:
    """The music as files of the evaluation's folder; what was drawn and played of another piece there goes."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    generated = []
    for index, piece in enumerate(pieces):
        path, content = folder / f"{index:03d}.mid", write_midi(piece.notes)
        if not path.is_file() or path.read_bytes() != content:
            for ending in DERIVED:
                path.with_suffix(ending).unlink(missing_ok=True)
            write_whole(path, content)
        prompt = Prompt(piece.captions[0] if piece.captions else "", piece.name)
        generated.append(Generated(prompt, path, piece.notes, closed=True))
    remove_others(folder, len(pieces))
    return generated


def _left_out(found: MidiFolder, real: References, asked: int) -> list[str]:
    """What the scores do not cover, in sentences."""
    sentences = [
        "The music was given as .mid files; a file here holds its notes, instruments, velocities and tempos. How it "
        "was drawn, and what its maker was trained on, is not known: prompts that training may have seen are scored "
        "like the others."
    ]
    if not asked:
        sentences.append("No captions were given, so that nothing says what the music was asked to be.")
    elif asked < len(found.pieces):
        sentences.append(
            f"{len(found.pieces) - asked:,} files have no caption; they count for the likeness to real music alone."
        )
    if found.without_file:
        sentences.append(f"{len(found.without_file):,} captions name no file and are not scored.")
    if found.refused:
        name, reason = found.refused[0]
        sentences.append(f"{len(found.refused):,} files cannot be read and are not scored, such as {name}: {reason}.")
    if not real.pieces:
        sentences.append("No real music was given to hold it against: --references or --data names some.")
    elif not any(piece.captions for piece in real.pieces):
        sentences.append("The real pieces have no captions, so that the best that can be reached is not known.")
    return sentences


def _facts(settings: Settings, real: References) -> dict[str, str]:
    facts = {"music of": str(settings.generated), "seed": str(settings.seed)}
    if settings.captions is not None:
        facts["captions of"] = str(settings.captions)
    if real.pieces:
        facts["real music"] = f"{len(real.pieces):,} pieces of {real.origin}"
    return facts
