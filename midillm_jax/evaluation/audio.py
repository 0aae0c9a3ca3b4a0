"""Scores of how music sounds: its Frechet audio distance (FAD) from real music, and its match with its prompts.

FAD (Kilgour et al. 2019, arXiv 1812.08466; frechet.py) is read beside what the same network makes, at the same number
of pieces, of real music that it has not seen and of the same with its pitches scrambled: a network that gives both the
same distance does not hear pitch, and no FAD that it gives says anything about it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.data.shards import Piece
from midillm_jax.errors import UserError
from midillm_jax.evaluation import embeddings, frechet, text_match
from midillm_jax.evaluation.clap import Clap
from midillm_jax.evaluation.frechet import LEAST_ROWS, Frechet
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.inputs import fingerprint
from midillm_jax.evaluation.musicnn import Musicnn
from midillm_jax.evaluation.networks import Embedding, Heard
from midillm_jax.evaluation.rendering import Player, Rendering, rendering, resampled
from midillm_jax.evaluation.text_match import Match
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES

FOLDER = "audio"
SHIFT = 6
"""Semitones up or down at most by which each note of a scrambled piece is moved."""

Tell = Callable[[str, int, int | None], None]
"""See protocol.Tell."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was asked for."""

    embeddings: tuple[str, ...]
    """Names; audio is scored only if there are any."""
    seconds: float
    """Of each piece."""
    cache: Path | None
    """Folder for what was played and heard; None for one in the evaluation's own."""


@dataclasses.dataclass(frozen=True)
class Listener:
    """The networks, and how pieces are played to them."""

    rendering: Rendering
    embeddings: tuple[Embedding, ...]
    cache: Path

    def to_json(self) -> dict[str, Any]:
        return {
            "rendering": self.rendering.to_json(),
            "embeddings": {each.name: each.protocol() for each in self.embeddings},
        }


def listener(settings: Settings, out: Path) -> Listener | None:
    """What is needed to hear, or None where nothing was asked for; nothing is written yet.

    Raises:
        UserError: a program, package, file or name is missing.
    """
    if not settings.embeddings:
        return None
    networks = tuple(map(embeddings.load, settings.embeddings))
    if len({each.name for each in networks}) < len(networks):
        raise UserError(f"--embedding {' '.join(settings.embeddings)}: two have one name; name each network once")
    return Listener(rendering(settings.seconds), networks, settings.cache or out / FOLDER)


@dataclasses.dataclass(frozen=True)
class Sight:
    """What FAD can see with this network at this number of pieces: distances from one half of the real pieces."""

    rows: int
    """Pieces of each half, and of the others."""
    real: float
    """Of the other half: what is no difference."""
    scrambled: float
    """Of the other half with every pitch moved at random (:func:`scrambled`)."""
    generated: float


@dataclasses.dataclass(frozen=True)
class EmbeddingScores:
    """What one network says."""

    name: str
    protocol: dict[str, Any]
    """All that decides a FAD; two are comparable only if all of it is the same."""
    fad: Frechet | None
    """None without real music."""
    sight: Sight | None
    matches: tuple[Match, ...]


@dataclasses.dataclass(frozen=True)
class AudioScores:
    """What all networks say."""

    embeddings: tuple[EmbeddingScores, ...]
    silent: int
    """Generated pieces of which nothing can be heard; they count as silence."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> tuple[str, ...]:
        """The results, a line each."""
        found = []
        for each in self.embeddings:
            if each.fad is not None and each.sight is not None:
                found.append(
                    f"FAD by {each.name}, {each.fad.rows} pieces from {each.fad.reference_rows} real ones: "
                    f"{numbers(each.fad.corrected)} corrected for size; of {each.sight.rows} from {each.sight.rows}: "
                    f"generated {each.sight.generated:.3g}, real {each.sight.real:.3g}, real with scrambled pitch "
                    f"{each.sight.scrambled:.3g}"
                )
            for match in each.matches:
                verdict = "better" if match.wins else "not better"
                found.append(
                    f"{match.name}, {match.prompts} prompts: {match.own.numbers()}, shuffled "
                    f"{match.shuffled.numbers()}: {verdict} by {match.better_by.numbers()}"
                )
        return tuple(found)


def numbers(interval: Any) -> str:
    """To three digits, whatever the size that a network's vectors give a distance."""
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def require_enough(heard: Listener | None, generated: int, references: int, prompts: int) -> None:
    """Refuses, before anything is played, what could not be scored.

    Raises:
        UserError: too few pieces for a FAD, or neither real music nor words to hold them against.
    """
    if heard is None:
        return
    if references and min(generated, references) < LEAST_ROWS:
        raise UserError(
            f"--embedding: a FAD of {generated} pieces from {references} real ones; expected at least {LEAST_ROWS} of "
            "each; give more, or score without real music"
        )
    for each in heard.embeddings:
        if not references and not (prompts and isinstance(each, Clap | Musicnn)):
            raise UserError(
                f"--embedding {each.name}: nothing to hold the music against; expected real music (--references, "
                "--data), or prompts and a network that knows words (clap, musicnn)"
            )


def score(
    heard: Listener,
    generated: Sequence[Generated],
    asked: Sequence[Generated],
    references: Sequence[Piece],
    digest: str,
    seed: int,
    tell: Tell,
) -> AudioScores:
    """Plays and hears all pieces; what was played or heard before is taken from the cache.

    Args:
        heard: how.
        generated: at least LEAST_ROWS pieces if there are references.
        asked: those of them whose prompts count.
        references: real pieces; those with a caption say what a match can reach.
        digest: SHA-256 (hex) of the references.
        seed: of the halves, the scrambling and the resamples.
        tell: see protocol.Tell.
    """
    ears = _Ears(heard, tell)
    order = np.random.default_rng(seed).permutation(len(references))
    rows = len(references) // 2
    halves = order[:rows], order[rows : 2 * rows]
    moved = [scrambled(references[index].notes, np.random.default_rng([seed, index])) for index in halves[1]]
    tables = [
        ("generated", [piece.table for piece in generated]),
        ("real", [piece.notes for piece in references]),
        ("scrambled", moved),
    ]
    of_prompt = {piece.path: index for index, piece in enumerate(generated)}
    captioned = [index for index, piece in enumerate(references) if piece.captions]
    found = []
    for embedding in heard.embeddings:
        sets = {name: ears.hear(embedding, pieces, name) for name, pieces in tables}
        fad = sight = None
        if references:
            mine, real, wrong = (np.stack([piece.mean() for piece in sets[name]]) for name, _ in tables)
            fad = frechet.score(real, mine, seed)
            count = min(rows, len(mine))
            near, far = real[halves[0]], real[halves[1]]
            drawn = mine[np.random.default_rng(seed).permutation(len(mine))[:count]]
            sight = Sight(
                count,
                *(frechet.distance(near, others) for others in (far[:count], wrong[:count], drawn)),
            )
        matches = text_match.matches(
            embedding,
            [sets["generated"][of_prompt[piece.path]] for piece in asked],
            [piece.prompt.text for piece in asked],
            [sets["real"][index] for index in captioned],
            [references[index].captions[0] for index in captioned],
            seed,
        )
        protocol = {
            **embedding.protocol(),
            "rendering": heard.rendering.to_json(),
            "rows": "pieces",
            "references": digest,
            "reference_pieces": len(references),
            "pieces": len(generated),
        }
        found.append(EmbeddingScores(embedding.name, protocol, fad, sight, matches))
    return AudioScores(tuple(found), sum(not ears.audio(piece.table).any() for piece in generated))


def scrambled(notes: NoteTable, rng: np.random.Generator) -> NoteTable:
    """The piece with every note but drums moved by up to SHIFT semitones, each by a number of its own.

    Rhythm, instruments, register and velocities stay; keys, chords and tunes are gone. Not degraded.scrambled, which
    deals a piece's pitches out anew: a bass that plays the tune's notes is another sound, and a network that only hears
    sounds would tell it from real music.
    """
    pitches = notes.notes % PITCHES
    shifts = rng.integers(-SHIFT, SHIFT + 1, len(notes))
    moved = np.clip(pitches + np.where(notes.notes // PITCHES == DRUM_PROGRAM, 0, shifts), 0, PITCHES - 1)
    return dataclasses.replace(notes, notes=(notes.notes - pitches + moved).astype(np.int32))


class _Ears:
    """Plays and hears, each piece and network once."""

    def __init__(self, heard: Listener, tell: Tell) -> None:
        self._player = Player(heard.rendering, heard.cache / "played")
        self._folder = heard.cache / "heard"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tell = tell

    def audio(self, notes: NoteTable) -> np.ndarray:
        """Of a piece, at the rendering's rate."""
        return self._player.audio(notes)

    def hear(self, embedding: Embedding, pieces: Sequence[NoteTable], kind: str) -> list[Heard]:
        """What the network makes of each piece."""
        found = []
        for done, notes in enumerate(pieces):
            self._tell(f"hearing {kind} pieces with {embedding.name}", done, len(pieces))
            path = self._folder / f"{fingerprint([self._player.key(notes), embedding.protocol()])}.npz"
            if not path.is_file():
                _keep(path, embedding.hear(self._heard_at(notes, embedding.sample_rate)))
            found.append(_kept(path))
        return found

    def _heard_at(self, notes: NoteTable, rate: int) -> np.ndarray:
        return resampled(self._player.audio(notes), self._player.how.sample_rate, rate)


def _keep(path: Path, heard: Heard) -> None:
    arrays = {"chunks": heard.chunks, "weights": heard.weights}
    if heard.tags is not None:
        arrays["tags"] = heard.tags
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def _kept(path: Path) -> Heard:
    with np.load(path) as arrays:
        tags = arrays["tags"] if "tags" in arrays.files else None
        return Heard(arrays["chunks"], arrays["weights"], tags)
