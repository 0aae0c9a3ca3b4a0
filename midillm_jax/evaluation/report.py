"""The page of an evaluation: one HTML file that needs no network, beside the pictures, sounds and .mid it links to."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from midillm_jax.evaluation import audio_page, tables
from midillm_jax.evaluation.audio import AudioScores
from midillm_jax.evaluation.curves import Run, draw
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.intervals import LEAST_ITEMS, Interval
from midillm_jax.evaluation.likelihood import SLOTS, Likelihood
from midillm_jax.evaluation.music_scores import MusicScores
from midillm_jax.evaluation.page_style import STYLE
from midillm_jax.evaluation.symbolic import DrumsAsAsked, InstrumentsAsAsked
from midillm_jax.music.instruments import PROGRAM_NAMES

_BITS = (
    "Bits a note: all nats spent on onsets, durations and notes of the held-out pieces, rests and the end of the "
    "piece included, over ln 2 and over the notes that sound. All models see the same windows. The model is "
    "normalised as in training, over all ids of the slot, anticipated notes included, which can only make it look "
    "worse; the unigram and the 5-gram over the ids that can occur. Both are counted in the train split: the "
    "unigram adds one to every count; the 5-gram reads onsets as distances and has modified Kneser-Ney smoothing."
)
"""How it was measured."""
_DRAWN = "Music is drawn once per prompt, with noise of its own, at the settings above."
_DRUM_WORDS = {True: "drums", False: "no drums", None: "nothing about drums"}


@dataclasses.dataclass(frozen=True)
class ReportPiece:
    """A generated piece and what was made of it."""

    generated: Generated
    asks_for_drums: bool | None
    has_drums: bool
    picture: Path | None = None
    """For the pieces that are shown."""
    sound: Path | None = None

    @property
    def as_asked(self) -> bool | None:
        """None where the prompt says nothing about drums."""
        return None if self.asks_for_drums is None else self.asks_for_drums == self.has_drums


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the page shows."""

    facts: Mapping[str, str]
    """What was evaluated and how: name and value."""
    likelihood: Likelihood | None
    """None of music that no model here made."""
    drums: DrumsAsAsked | None
    """None where nothing was asked."""
    instruments: InstrumentsAsAsked | None
    music: MusicScores
    runs: Sequence[Run]
    pieces: Sequence[ReportPiece]
    notes: Sequence[str]
    """Sentences on what was left out or is missing, such as players."""
    audio: AudioScores | None = None
    """None where none were asked for."""
    further: Sequence[str] = ()
    """Sections that further.py made."""


def render(report: Report, folder: Path) -> str:
    """The page's HTML; every file it links to lies in or below ``folder``."""
    shown = [piece for piece in report.pieces if piece.picture is not None]
    facts = " · ".join(f"{_text(name)} <b>{_text(value)}</b>" for name, value in report.facts.items())
    sections = [
        f"<header><h1>{'What it plays' if report.likelihood is None else 'What it learned, and what it plays'}</h1>",
        f'<p class="soft facts">{facts}</p></header>',
        _scores(report),
        _music(report.music),
        "" if report.audio is None else audio_page.section(report.audio),
        *report.further,
        _runs(report.runs),
        f"<h2>Music</h2>{_lead('The first prompts in the order they were drawn; none was picked by hand.')}",
        f'<div class="grid pieces">{"".join(_piece(piece, folder) for piece in shown)}</div>',
        _all_pieces(report.pieces, folder),
        _method(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>midillm_jax evaluation</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _link(path: Path, folder: Path) -> str:
    return html.escape(quote(path.relative_to(folder).as_posix()))


def _lead(words: str) -> str:
    return f'<p class="soft lead">{_text(words)}</p>'


def _scores(report: Report) -> str:
    cards = [] if report.likelihood is None else [_bits(report.likelihood)]
    if report.drums is not None:
        cards.append(_drums(report.drums, "prompts" if report.likelihood is None else "unseen prompts"))
    if report.instruments is not None:
        cards.append(_instruments(report.instruments))
    return f'<section class="grid scores">{"".join(cards)}</section>' if cards else ""


def _bits(likelihood: Likelihood) -> str:
    most = max(likelihood.model.high, likelihood.unigram.high, likelihood.ngram.high)
    return _score(
        "Foresees held-out music",
        "bits a note, fewer is better",
        _chip(likelihood.wins, likelihood.better_by, 1, "bits", than=" than the unigram")
        + " "
        + _chip(likelihood.beats_ngram, likelihood.better_than_ngram_by, 1, "bits", than=" than the 5-gram"),
        [
            _bar("this model", likelihood.model, most, 1, ""),
            _bar("5-gram", likelihood.ngram, most, 1, "", model=False),
            _bar("unigram", likelihood.unigram, most, 1, "", model=False),
        ],
        f"What {likelihood.pieces} unseen pieces ({likelihood.notes:,} notes) cost to foretell, note by note, "
        "their captions given. A unigram model knows only how common each id is, a 5-gram model what followed the "
        "same four tokens in the train split; every bit less means that the model found what came next twice as "
        "likely, on geometric average per note.",
        _slots(likelihood),
    )


def _drums(drums: DrumsAsAsked, prompts: str) -> str:
    if drums.share is None or drums.shuffled is None or drums.better_by is None:
        return _score("Drums as asked", "", "", [], "No prompt said whether it wants drums.")
    return _score(
        "Drums as asked",
        "share of pieces, more is better",
        _chip(drums.wins, drums.better_by, 100, "points"),
        [
            _bar("its own caption", drums.share, 1, 100, " %"),
            _bar("shuffled captions", drums.shuffled, 1, 100, " %", model=False),
        ],
        f"Of {drums.prompts} {prompts} that ask for drums or for none, the share whose music has drums "
        "exactly if they were asked for. Judged against somebody else's caption, a model that listens does "
        "worse; one that does not listen does as well."
        + (
            f" {drums.silent_prompts} prompts that say nothing about drums are left out."
            if drums.silent_prompts
            else ""
        ),
    )


def _instruments(score: InstrumentsAsAsked) -> str:
    return _score(
        "Instruments of the piece described",
        "F1, more is better",
        _chip(score.wins, score.better_by, 100, "points"),
        [
            _bar("its own caption", score.f1, 1, 100, " %"),
            _bar("shuffled captions", score.shuffled_f1, 1, 100, " %", model=False),
        ],
        f"Instruments played beside those of the piece that the caption describes: {100 * score.precision.value:.0f} % "
        f"of what plays was wanted (precision), {100 * score.recall.value:.0f} % of what was wanted plays (recall).",
    )


def _score(title: str, unit: str, chip: str, bars: Sequence[str], note: str, more: str = "") -> str:
    return (
        f'<article class="card"><div class="head"><h3>{_text(title)}</h3><span class="soft">{_text(unit)}</span></div>'
        f'<p>{chip}</p><div class="bars">{"".join(bars)}</div>'
        f'<p class="note">{_text(note)}</p>{more}</article>'
    )


def _chip(wins: bool, difference: Interval, factor: float, unit: str, than: str = "") -> str:
    value, low, high = _numbers(difference, factor)
    if wins:
        return f'<span class="chip good">better{than} by {value} {_text(unit)} [{low}, {high}]</span>'
    return f'<span class="chip">not better{than} ({value} {_text(unit)} [{low}, {high}])</span>'


def _bar(label: str, score: Interval, most: float, factor: float, unit: str, *, model: bool = True) -> str:
    value, low, high = _numbers(score, factor)
    width, left, right = (100 * part / most if most else 0.0 for part in (score.value, score.low, score.high))
    kind = "bar model" if model else "bar"
    return (
        f'<div><div class="head"><span>{_text(label)}</span>'
        f'<span class="value"><b>{value}{_text(unit)}</b> <span class="soft">[{low}, {high}]</span></span></div>'
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="12"/><rect class="{kind}" width="{width:.2f}" height="12"/>'
        f'<line class="whisker" x1="{left:.2f}" x2="{right:.2f}" y1="6" y2="6"/></svg></div>'
    )


def _numbers(score: Interval, factor: float) -> tuple[str, str, str]:
    """Value and bounds: bits to two places, shares in whole percent; nothing rounds to -0."""
    digits = 2 if factor == 1 else 0
    value, low, high = (
        f"{round(factor * part, digits) + 0.0:.{digits}f}" for part in (score.value, score.low, score.high)
    )
    return value, low, high


def _slots(likelihood: Likelihood) -> str:
    head = "".join(f'<th class="number">{slot}</th>' for slot in SLOTS)
    rows = ""
    for name, bits in (
        ("this model", likelihood.model_by_slot),
        ("5-gram", likelihood.ngram_by_slot),
        ("unigram", likelihood.unigram_by_slot),
    ):
        cells = "".join(f'<td class="number">{bits[slot]:.2f}</td>' for slot in SLOTS)
        rows += f"<tr><td>{name}</td>{cells}</tr>"
    return f"<table><tr><th>bits for the</th>{head}</tr>{rows}</table>"


def _music(scores: MusicScores) -> str:
    asked, likeness = tables.controls(scores), tables.likeness(scores)
    sections = []
    if asked:
        sections.append(
            f'<h2>As asked</h2><article class="card scroll">{asked}<p class="note">What a prompt asks for is read from '
            "its words, what music has from its notes. Prompts that do not ask for something are left out of it; what "
            "is better than by chance is bold. Tempo and meter are heard, not read: the last column is what the same "
            "ears make of real pieces, and no model can be expected to do better.</p></article>"
        )
    if likeness:
        sections.append(
            f'<h2>Like real music</h2><article class="card scroll">{likeness}<p class="note">Beside the held-out '
            "pieces. The overlapped area is that of the two distributions: 100 % where they are the same.</p></article>"
        )
    return "".join(sections)


def _runs(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    key = (
        '<p class="soft lead"><span class="key" style="background: var(--other)"></span>training batches &ensp;'
        '<span class="key" style="background: var(--model)"></span>held-out pieces and texts, over steps</p>'
    )
    cards = [
        f'<article class="card"><div class="head"><h3>{_text(run.name)}</h3>'
        f'<span class="soft">{_text(curve.title)}</span></div>{draw(curve)}</article>'
        for run in runs
        for curve in run.curves
    ]
    return f'<h2>Training</h2>{key}<div class="grid runs">{"".join(cards)}</div>'


def _piece(piece: ReportPiece, folder: Path) -> str:
    generated = piece.generated
    instruments = ", ".join(PROGRAM_NAMES[program] for program in generated.table.programs())
    picture = ""
    if piece.picture is not None:
        link = _link(piece.picture, folder)
        alt = f"Piano roll of {generated.path.name}: {instruments}"
        picture = f'<a href="{link}"><img src="{link}" alt="{_text(alt)}" loading="lazy"></a>'
    player = ""
    if piece.sound is not None:
        player = f'<audio controls preload="none" src="{_link(piece.sound, folder)}"></audio>'
    chips = [f'<span class="chip">asked: {_DRUM_WORDS[piece.asks_for_drums]}</span>']
    mark = {True: " good", False: "", None: ""}[piece.as_asked]
    sign = {True: " ✓", False: " ✗", None: ""}[piece.as_asked]
    chips.append(f'<span class="chip{mark}">plays: {_DRUM_WORDS[piece.has_drums]}{sign}</span>')
    return (
        f'<article class="card piece"><p class="prompt">{_text(generated.prompt.title)}</p>'
        f'<div class="chips">{"".join(chips)}</div>{picture}{player}'
        f'<p class="facts">{_facts(generated)} · {_text(instruments)} · '
        f'<a href="{_link(generated.path, folder)}" download>{_text(generated.path.name)}</a></p></article>'
    )


def _facts(generated: Generated) -> str:
    ending = "" if generated.closed else " · cut where the room ended"
    notes = "1 note" if len(generated.table) == 1 else f"{len(generated.table):,} notes"
    return f"{notes} · {generated.table.seconds():.1f} s{ending}"


def _all_pieces(pieces: Sequence[ReportPiece], folder: Path) -> str:
    rows = "".join(
        f'<tr><td><a href="{_link(piece.generated.path, folder)}" download>{_text(piece.generated.path.name)}</a></td>'
        f"<td>{_text(piece.generated.prompt.title)}</td><td>{_DRUM_WORDS[piece.asks_for_drums]}</td>"
        f"<td>{_DRUM_WORDS[piece.has_drums]} { ({True: '✓', False: '✗', None: ''}[piece.as_asked]) }</td>"
        f'<td class="number">{len(piece.generated.table):,}</td>'
        f'<td class="number">{piece.generated.table.seconds():.1f}</td></tr>'
        for piece in pieces
    )
    return (
        f'<h2>All {len(pieces)} pieces</h2><article class="card scroll"><table><tr><th>file</th><th>prompt</th>'
        '<th>asked</th><th>plays</th><th class="number">notes</th><th class="number">seconds</th></tr>'
        f"{rows}</table></article>"
    )


def _method(report: Report) -> str:
    points = [
        "Brackets hold 95 % of 4,000 bootstrap resamples of the pieces or prompts; two scores are compared on the "
        "same resamples. A comparison is won only if the whole interval of the difference is on the better side and "
        f"there are {LEAST_ITEMS} items or more.",
        *(() if report.likelihood is None else (_BITS,)),
        "Drums as asked: what a caption asks is read from its words, what a piece holds from its notes. The shuffled "
        "score is the mean over all ways to deal the captions out to the same pieces.",
        "As asked and like real music: definitions and sources stand in the docstrings of midillm_jax/evaluation: "
        "control.py, quality.py and structure.py, and of midillm_jax/music/rhythm.py.",
        *(() if report.likelihood is None else (_DRAWN,)),
        *report.notes,
    ]
    items = "".join(f"<li>{_text(point)}</li>" for point in points)
    return f"<details open><summary>How this was measured</summary><ul>{items}</ul></details>"
