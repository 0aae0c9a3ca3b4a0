"""Words about a piece, from the piece: what its notes, tempos and meters plainly say, in MidiCaps' manner."""

import dataclasses
import random
from typing import Any

import numpy as np

from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import DEFAULT_TEMPO, NoteTable
from midillm_jax.music.terms import duration_word, listed, tempo_words, with_article
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

_NAMED_INSTRUMENTS = 5
"""As many as MidiCaps names."""
_STEADY_SHARE = 0.8
"""Of the time that one tempo must hold for a caption to give it as a number."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What is plainly in a piece."""

    instruments: tuple[tuple[int, float], ...]
    """(program, share of the pitched notes' sounding time), most first; drums are apart."""
    drums: bool
    bpm: float | None
    """Quarter notes a minute of the tempo that holds longest; None where the file sets neither tempo nor meter."""
    steady: bool
    """Whether that tempo holds for four fifths of the piece."""
    meter: tuple[int, int] | None
    """The time signature that holds longest, if the file gives one."""
    seconds: float
    notes: int

    @property
    def instrument_words(self) -> tuple[str, ...]:
        """Captions' words for the instruments, most sounding first, each once; "drums" last."""
        words = [CAPTION_WORDS[program] for program, _ in self.instruments]
        return tuple(dict.fromkeys([*words, *(["drums"] if self.drums else [])]))


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What somebody wrote about a piece: never guessed, and empty where nobody did."""

    genre: str = ""
    """Genre words, as one phrase."""
    composer: str = ""
    title: str = ""


def describe(table: NoteTable) -> Description:
    """Reads off a table what a caption may say."""
    programs = table.notes // PITCHES
    sounding = np.bincount(programs, weights=np.maximum(table.durations, 1), minlength=DRUM_PROGRAM + 1)
    drums = bool(sounding[DRUM_PROGRAM])
    sounding[DRUM_PROGRAM] = 0
    total = sounding.sum()
    # A stable sort: of two instruments that sound equally long, the lower program comes first.
    order = [int(program) for program in np.argsort(-sounding, kind="stable") if sounding[program]]
    seconds = table.seconds()
    bpm, steady = _tempo(table, seconds)
    return Description(
        instruments=tuple((program, float(sounding[program] / total)) for program in order),
        drums=drums,
        bpm=bpm,
        steady=steady,
        meter=_meter(table, seconds),
        seconds=seconds,
        notes=len(table),
    )


def _tempo(table: NoteTable, seconds: float) -> tuple[float | None, bool]:
    """The tempo that holds longest, in quarter notes a minute, and whether it holds for most of the piece."""
    holds = _holding_times(table.tempos[:, 0], seconds)
    by_tempo: dict[int, float] = {}
    for tempo, held in zip(table.tempos[:, 1].tolist(), holds, strict=True):
        if tempo > 0:
            by_tempo[tempo] = by_tempo.get(tempo, 0.0) + held
    # A table cannot tell a file that sets 120 from one that sets nothing; a meter shows that somebody kept the time.
    unset = len(table.tempos) == 1 and table.tempos[0, 1] == DEFAULT_TEMPO and not len(table.meters)
    if unset or not by_tempo:
        return None, False
    tempo = max(by_tempo, key=lambda tempo: by_tempo[tempo])
    return 60_000_000 / tempo, by_tempo[tempo] >= _STEADY_SHARE * seconds


def _meter(table: NoteTable, seconds: float) -> tuple[int, int] | None:
    holds = _holding_times(table.meters[:, 0], seconds)
    by_meter: dict[tuple[int, int], float] = {}
    for (_, numerator, denominator), held in zip(table.meters.tolist(), holds, strict=True):
        by_meter[numerator, denominator] = by_meter.get((numerator, denominator), 0.0) + held
    return max(by_meter, key=lambda meter: by_meter[meter]) if by_meter else None


def _holding_times(onsets: np.ndarray, seconds: float) -> list[float]:
    """Seconds for which each entry of a tempo or meter map holds within the piece."""
    starts = np.minimum(onsets / TICKS_PER_SECOND, seconds)
    return np.diff(starts, append=seconds).tolist()


_OPENINGS = (
    "{A_length} featuring {band}{no_drums}.",
    "{A_length} for {band}{no_drums}.",
    "{A_length} played by {band}{no_drums}.",
    "This {length} features {band}{no_drums}.",
    "{Band} {play} {a_length}{no_drums}.",
)
_GENRE_OPENINGS = (
    "{Genre}, played by {band}{no_drums}.",
    "{Genre} for {band}{no_drums}.",
    "{Genre}: {a_length} featuring {band}{no_drums}.",
    "{Genre}, with {band}{no_drums}.",
)
_BOTH = (
    "It has a {meter} time signature and {a_tempo}.",
    "The time signature is {meter} and the piece moves at {a_tempo}.",
    "Set in {meter} time, it moves at {a_tempo}.",
)
_TEMPO = ("It moves at {a_tempo}.", "The piece has {a_tempo}.", "It is played at {a_tempo}.")
_METER = ("The time signature is {meter}.", "It is in {meter} time.")
_NO_DRUMS = (" without drums", ", without any drums", ", but no drums")
_NO_DRUMS_SENTENCES = ("There are no drums.", "It has no drums.", "No drums are used.", "It is played without drums.")
_LENGTHS = ("It lasts {duration}.", "It is {duration} long.")
_LEADING_SHARE = 0.5


def caption(description: Description, rng: random.Random, catalogue: Catalogue | None = None) -> str:
    """One to five sentences: instruments and drums always, tempo, meter and length often, nothing that is not there."""
    catalogue = catalogue or Catalogue()
    words = description.instrument_words
    named = [word for word in words if word != "drums"][:_NAMED_INSTRUMENTS]
    more = len(words) - len(named) - description.drums
    band = [*named, *(["drums"] if description.drums else []), *(["other instruments"] if more else [])]
    length = duration_word(description.seconds)
    facts = {
        "band": listed(band),
        "play": "plays" if len(band) == 1 and not band[0].endswith(("drums", "strings", "bells")) else "play",
        "length": length,
        "a_length": with_article(length),
        "genre": catalogue.genre,
        "duration": _spoken_duration(description.seconds),
    }
    said = not description.drums and rng.random() < 0.5
    facts |= {"no_drums": rng.choice(_NO_DRUMS) if said else ""}
    facts |= {name.capitalize(): value[:1].upper() + value[1:] for name, value in facts.items()}
    openings = _GENRE_OPENINGS if catalogue.genre else _OPENINGS
    sentences = [rng.choice(openings).format(**facts)]
    details = []
    if time := _time_sentence(description, rng):
        details.append(time)
    if not description.drums and not said and rng.random() < 0.7:
        details.append(rng.choice(_NO_DRUMS_SENTENCES))
    if rng.random() < 0.5:
        details.append(rng.choice(_LENGTHS).format(**facts))
    if len(description.instruments) > 2 and description.instruments[0][1] >= _LEADING_SHARE and rng.random() < 0.4:
        details.append(f"The {words[0]} {_is(words[0])} heard most.")
    rng.shuffle(details)
    if catalogue.composer and rng.random() < 0.3:
        details.append(f"The composer is {catalogue.composer}.")
    if catalogue.title and rng.random() < 0.2:
        details.append(f"The title is {catalogue.title}.")
    return " ".join([*sentences, *details])


def _is(instrument: str) -> str:
    return "are" if instrument.endswith(("drums", "strings", "bells")) else "is"


def _time_sentence(description: Description, rng: random.Random) -> str:
    """A sentence on tempo, meter or both; empty where the file says neither, and now and then all the same."""
    meter = "{}/{}".format(*description.meter) if description.meter else ""
    tempo = ""
    if description.bpm is not None:
        italian, plain = tempo_words(description.bpm)
        tempo = rng.choice((with_article(f"{plain} tempo"), with_article(f"{italian} tempo")))
        if description.steady:
            tempo = rng.choice(
                (tempo, f"{tempo} of {description.bpm:.0f} BPM", f"a tempo of {description.bpm:.0f} BPM")
            )
        else:
            tempo = f"{tempo} that changes"
    choices = [*(_TEMPO if tempo else ()), *(_METER if meter else ()), *(2 * _BOTH if tempo and meter else ())]
    if not choices or rng.random() < 0.1:
        return ""
    sentence: str = rng.choice(choices)
    return sentence.format(meter=meter, a_tempo=tempo)


def _spoken_duration(seconds: float) -> str:
    """ "about 40 seconds" or "about 3 minutes"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} second{'s' if round(seconds) > 1 else ''}"
    return f"about {round(seconds / 60)} minutes"


def columns(description: Description) -> dict[str, Any]:
    """MidiCaps' columns for what the description holds; a column without a fact is left out."""
    row: dict[str, Any] = {
        "duration": round(description.seconds),
        "duration_word": duration_word(description.seconds),
        "instrument_summary": list(description.instrument_words),
        "instrument_numbers_sorted": [
            *(program for program, _ in description.instruments),
            *([DRUM_PROGRAM] if description.drums else []),
        ],
        "drums": description.drums,
    }
    if description.bpm is not None:
        row |= {"tempo": round(description.bpm), "tempo_word": tempo_words(description.bpm)[0]}
    if description.meter is not None:
        row["time_signature"] = "{}/{}".format(*description.meter)
    return row
