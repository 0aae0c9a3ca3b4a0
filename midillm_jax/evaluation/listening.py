"""A blind listening test of two models on the same prompts: the pairs, which of them stands first, and the outcome.

Each pair is one prompt's music by both models. Half of the pairs have A first, which ones is drawn by the seed; the
page (listening_page.py) says neither names nor order, and asks two things: which is the better music, and which fits
the words better. "No difference" is an answer. A preference is B's share of the answers that name one, with Wilson's
interval, which takes answers for independent: several listeners' answers to one pair are less than that.
"""

import base64
import dataclasses
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval, wilson
from midillm_jax.evaluation.protocol import RESULTS
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable, read_midi, write_midi
from midillm_jax.music.vocab import TICKS_PER_SECOND

FORMAT = 1
"""Of results files."""
QUESTIONS = {"music": "Which is the better music?", "words": "Which fits the words better?"}
SIDES = ("first", "second", "neither")
"""Answers."""
_MEDIA = {".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".wav": "audio/wav"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """One prompt's music by both models."""

    prompt: str
    a: Path
    """The .mid file."""
    b: Path


@dataclasses.dataclass(frozen=True)
class Test:
    """What a page asks about, in order."""

    seed: int
    names: tuple[str, str]
    """Of A and B: their folders."""
    pairs: tuple[Pair, ...]

    @property
    def id(self) -> str:
        """Of this music in this order; results of another test have another one."""
        digest = hashlib.sha256(f"{FORMAT} {self.seed}".encode())
        for pair in self.pairs:
            for part in (pair.prompt.encode(), pair.a.read_bytes(), pair.b.read_bytes()):
                digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()[:16]


def draw(a: Path, b: Path, pairs: int, seed: int) -> Test:
    """Draws prompts that both folders have music for.

    Raises:
        UserError: a folder is no finished evaluation, they share no prompt, or a .mid file is gone.
    """
    if pairs < 1:
        raise UserError(f"--pairs {pairs}: expected 1 or more")
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are one folder; expected the results of two models")
    first, second = _music(a), _music(b)
    shared = [prompt for prompt in first if prompt in second]
    if not shared:
        raise UserError(
            f"{a} and {b} have no prompt in common; evaluate both models on the same data with the same --pieces and "
            "--seed, or the same --prompts-file"
        )
    chosen = np.random.default_rng(seed).permutation(len(shared))[:pairs].tolist()
    drawn = tuple(Pair(shared[number], first[shared[number]], second[shared[number]]) for number in chosen)
    return Test(seed, (str(a), str(b)), drawn)


def _music(folder: Path) -> dict[str, Path]:
    """Prompt -> .mid file, of prompts that occur once or more the first; given files may have none."""
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        found = [(piece["prompt"], folder / piece["midi"]) for piece in results["pieces"] if piece["prompt"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder}: holds no {RESULTS} that can be read; expected a folder that `python -m midillm_jax.evaluate` "
            "finished; run it with --out of this name"
        ) from None
    for _, path in found:
        if not path.is_file():
            raise UserError(f"{path}: no such file, though {folder / RESULTS} names it; evaluate that model again")
    return dict(reversed(found))


def a_first(seed: int, pairs: int) -> list[bool]:
    """Of each pair, whether A stands first: of half of them, in an order of chance."""
    rng = np.random.default_rng([seed, pairs])
    sides = np.arange(pairs) % 2 == rng.integers(2)
    return rng.permutation(sides).tolist()


def sounds(test: Test, seconds: float, report: Callable[[int, int], None]) -> list[tuple[str, str]]:
    """The two sounds of each pair as they stand on the page, as data: URLs.

    Both are played here by the same synthesizer at the same loudness, no longer than ``seconds``; where there is none,
    the audio that both evaluations left is taken whole.

    Raises:
        UserError: neither can be had.
    """
    if not seconds > 0:
        raise UserError(f"--seconds {seconds:g}: expected more than 0")
    missing = _missing()
    found = []
    for number, (pair, first) in enumerate(zip(test.pairs, a_first(test.seed, len(test.pairs)), strict=True)):
        report(number, len(test.pairs))
        a, b = (_kept(path, missing) if missing else _played(path, seconds) for path in (pair.a, pair.b))
        found.append((a, b) if first else (b, a))
    return found


def _missing() -> str | None:
    """What there is not to play with, and how to get it; None where all is there."""
    if not (shutil.which("fluidsynth") and render.find_soundfont()):
        return f"FluidSynth or a soundfont is missing ({render.how_to_install_audio()})"
    if importlib.util.find_spec("soundfile") is None:
        return "the package soundfile is missing (pip install 'midillm_jax[audio]')"
    return None


def _kept(path: Path, missing: str) -> str:
    for ending in _MEDIA:
        audio = path.with_suffix(ending)
        if audio.is_file():
            return _url(audio)
    raise UserError(
        f"{path}: there is no audio of this piece, and none can be made as {missing}; a listening test needs sound, a "
        "picture will not do: install that, or evaluate both models where it is, with --show of at least --pieces"
    )


def _played(path: Path, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        midi, audio = Path(folder) / "piece.mid", Path(folder) / "piece.mp3"
        opening = _opening(read_midi(path.read_bytes()), seconds)
        if not len(opening):
            raise UserError(f"{path}: nothing sounds in its first {seconds:g} seconds; give --seconds of more")
        midi.write_bytes(write_midi(opening))
        return _url(render.audio(midi, audio))


def _opening(notes: NoteTable, seconds: float) -> NoteTable:
    """What sounds before ``seconds``, cut there."""
    end = round(seconds * TICKS_PER_SECOND)
    count = int(np.searchsorted(notes.onsets, end))
    onsets = notes.onsets[:count]
    durations = np.minimum(notes.durations[:count], end - onsets)
    return NoteTable(onsets, durations, notes.notes[:count], notes.velocities[:count])


def _url(audio: Path) -> str:
    return f"data:{_MEDIA[audio.suffix]};base64,{base64.b64encode(audio.read_bytes()).decode()}"


@dataclasses.dataclass(frozen=True)
class Preference:
    """What listeners said to one question."""

    question: str
    a: int
    """Answers for A."""
    b: int
    neither: int
    b_preferred: Interval | None
    """B's share of the answers for one of them; None where there are none."""

    @property
    def better(self) -> str | None:
        """ "A", "B", or None where this many answers do not tell."""
        if self.b_preferred is None:
            return None
        return "B" if self.b_preferred.low > 0.5 else "A" if self.b_preferred.high < 0.5 else None

    def line(self) -> str:
        """The result in one line."""
        counts = f"{QUESTIONS[self.question]} A {self.a}, B {self.b}, no difference {self.neither}"
        if self.b_preferred is None:
            return f"{counts}: nobody heard a difference"
        verdict = "not resolved by this many answers" if self.better is None else f"{self.better} is preferred"
        return f"{counts}: B in {self.b_preferred.percent()} of those that name one: {verdict}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a listening test."""

    names: tuple[str, str]
    listeners: int
    answered: int
    """Pairs, added up over listeners."""
    preferences: tuple[Preference, ...]

    def lines(self) -> tuple[str, ...]:
        """The results, a line each."""
        who = "1 listener" if self.listeners == 1 else f"{self.listeners} listeners"
        head = f"A {self.names[0]}, B {self.names[1]}: {self.answered} answered pairs of {who}"
        return (head, *(preference.line() for preference in self.preferences))


def score(files: Sequence[Path]) -> Outcome:
    """Adds up results files of one test, a listener each.

    Raises:
        UserError: a file is none, one is given twice, or they are of different tests.
    """
    if len({path.resolve() for path in files}) < len(files):
        raise UserError("--score: a results file is given twice; name each listener's once")
    results = [_read(path) for path in files]
    for path, result in zip(files, results, strict=True):
        if result["test"] != results[0]["test"]:
            raise UserError(f"{path}: is of another listening test than {files[0]}; score the two by themselves")
    counts = {question: dict.fromkeys(("a", "b", "neither"), 0) for question in QUESTIONS}
    answered = 0
    for result in results:
        order = a_first(result["seed"], result["pairs"])
        for answer in result["answers"]:
            answered += 1
            names = ("a", "b") if order[answer["pair"]] else ("b", "a")
            for question in QUESTIONS:
                side = answer[question]
                counts[question]["neither" if side == "neither" else names[SIDES.index(side)]] += 1
    preferences = tuple(_preference(question, count) for question, count in counts.items())
    return Outcome((results[0]["a"], results[0]["b"]), len(results), answered, preferences)


def _preference(question: str, count: dict[str, int]) -> Preference:
    decided = count["a"] + count["b"]
    return Preference(question, **count, b_preferred=wilson(count["b"], decided) if decided else None)


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        pairs, answers = result["pairs"], result["answers"]
        numbers = [answer["pair"] for answer in answers]
        sides = [answer[question] for answer in answers for question in QUESTIONS]
        whole = (
            result["format"] == FORMAT
            and all(isinstance(result[name], str) for name in ("test", "a", "b"))
            and isinstance(result["seed"], int)
            and len(set(numbers)) == len(numbers)
            and set(numbers) <= set(range(pairs))
            and set(sides) <= set(SIDES)
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole, answers = False, []
    if not whole:
        raise UserError(f"{path}: is no results file of a listening test; expected what the page's download gave")
    if not answers:
        raise UserError(f"{path}: holds no answers; answer at least one pair before you download the results")
    return result
