"""What is plainly in a piece: the facts that a caption may state, read off its notes, tempos and meters."""

import dataclasses

import numpy as np

from midillm_jax.data.beats import beat_grid, keeps_time
from midillm_jax.data.harmony import Harmony, Progression, find_harmony, find_progression, triad_shares
from midillm_jax.data.tonality import Key, estimate_key, tuned
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import DEFAULT_TEMPO, NoteTable
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES, TICKS_PER_SECOND

_STEADY_SHARE = 0.8
"""Of the time that one tempo must hold for a caption to give it as a number."""
_SAME_TEMPO = 1.03
"""Ratio up to which two tempos are one to the ear."""
_LEAST_VOICES = 2.1
"""Notes sounding at a time, on average, from which there are chords, and not lines that imply them."""
_ONE_VOICE = 1.02
_DRUM_WINDOW = 200
"""Ticks: drums play throughout if nearly every two seconds hold a stroke."""
_THROUGHOUT = 0.95


@dataclasses.dataclass(frozen=True)
class Description:
    """What is plainly in a piece."""

    instruments: tuple[tuple[int, float], ...]
    """(program, share of the pitched notes' sounding time), most first; drums are apart."""
    drums: bool
    drums_throughout: bool
    """Whether they hardly ever pause for two seconds."""
    bpm: float | None
    """Quarter notes a minute of the tempo that holds longest; None where the file sets neither tempo nor meter."""
    steady: bool
    """Whether that tempo holds for four fifths of the piece."""
    meter: tuple[int, int] | None
    """The time signature that holds longest, if the file gives one of more than one beat."""
    free: bool
    """Whether the notes do not follow the file's tempos, so that tempo, meter and chords are not told."""
    key: Key | None
    """None where no key stands out."""
    spelling: Key | None
    """The likeliest key, clear or not, in which chords are spelled."""
    harmony: Harmony | None
    """None where the bars are not known, or no chords sound."""
    progression: Progression | None
    voices: float
    """Notes with a pitch that sound at a time, on average over the time when any does."""
    pitch: float | None
    """Mean MIDI pitch, weighted by sounding time; None where nothing has a pitch."""
    seconds: float
    notes: int

    @property
    def instrument_words(self) -> tuple[str, ...]:
        """Captions' words for the instruments, most sounding first, each once; "drums" last."""
        words = [CAPTION_WORDS[program] for program, _ in self.instruments]
        return tuple(dict.fromkeys([*words, *(["drums"] if self.drums else [])]))

    @property
    def one_voice(self) -> bool:
        """Whether the piece is a single line, without drums."""
        return not self.drums and 0 < self.voices <= _ONE_VOICE

    @property
    def notes_a_second(self) -> float:
        return self.notes / max(self.seconds, 1.0)


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
    free = not keeps_time(table)
    bpm, steady = (None, False) if free else _tempo(table, seconds)
    voices, pitch = _voices(table)
    harmony = _harmony(table) if bpm is not None and voices >= _LEAST_VOICES else None
    estimate = estimate_key(table, None if harmony is None else triad_shares(harmony))
    return Description(
        instruments=tuple((program, float(sounding[program] / total)) for program in order),
        drums=drums,
        drums_throughout=drums and _throughout(table),
        bpm=bpm,
        steady=steady,
        meter=None if free else _meter(table, seconds),
        free=free,
        key=estimate.key if estimate is not None and estimate.clear else None,
        spelling=None if estimate is None else estimate.key,
        harmony=harmony,
        progression=None if harmony is None else find_progression(harmony),
        voices=voices,
        pitch=pitch,
        seconds=seconds,
        notes=len(table),
    )


def _harmony(table: NoteTable) -> Harmony | None:
    grid = beat_grid(table)
    return None if grid is None else find_harmony(table, grid)


def _voices(table: NoteTable) -> tuple[float, float | None]:
    """How many notes with a pitch sound at a time, and their mean pitch."""
    chosen = tuned(table)
    if not chosen.any():
        return 0.0, None
    onsets = table.onsets[chosen].astype(np.int64)
    lengths = np.maximum(table.durations[chosen], 1).astype(np.int64)
    reached = np.maximum.accumulate(onsets + lengths)
    covered = reached[-1] - onsets[0] - np.maximum(onsets[1:] - reached[:-1], 0).sum()
    pitches = table.notes[chosen] % PITCHES
    return float(lengths.sum() / covered), float((pitches * lengths).sum() / lengths.sum())


def _throughout(table: NoteTable) -> bool:
    strokes = np.unique(table.onsets[table.notes // PITCHES == DRUM_PROGRAM] // _DRUM_WINDOW)
    first, last = (int(table.onsets[at]) // _DRUM_WINDOW for at in (0, -1))
    return len(strokes) >= _THROUGHOUT * (last - first + 1)


def _tempo(table: NoteTable, seconds: float) -> tuple[float | None, bool]:
    """The tempo that holds longest, in quarter notes a minute, and whether it holds for most of the piece.

    Tempos within a few per cent of each other count together, as those of a performance are. Files hold microseconds a
    quarter note, so that 115 comes back as 114.99996: hence two decimals.
    """
    # A table cannot tell a file that sets 120 from one that sets nothing; a meter shows that somebody kept the time.
    unset = len(table.tempos) == 1 and table.tempos[0, 1] == DEFAULT_TEMPO and not len(table.meters)
    real = table.tempos[:, 1] > 0
    if unset or not real.any():
        return None, False
    holds = np.array(_holding_times(table.tempos[:, 0], seconds))[real]
    tempos, places = np.unique(table.tempos[real, 1], return_inverse=True)
    held = np.bincount(places, weights=holds)
    before = np.concatenate([[0.0], np.cumsum(held)])
    low = np.searchsorted(tempos, tempos / _SAME_TEMPO, side="left")
    high = np.searchsorted(tempos, tempos * _SAME_TEMPO, side="right")
    near = before[high] - before[low]
    best = np.lexsort((held, near))[-1]
    return round(60_000_000 / int(tempos[best]), 2), bool(near[best] >= _STEADY_SHARE * seconds)


def _meter(table: NoteTable, seconds: float) -> tuple[int, int] | None:
    """The meter that holds longest. Bars of a single beat are how a program wrote beats or an upbeat, not a meter."""
    holds = _holding_times(table.meters[:, 0], seconds)
    by_meter: dict[tuple[int, int], float] = {}
    for (_, numerator, denominator), held in zip(table.meters.tolist(), holds, strict=True):
        by_meter[numerator, denominator] = by_meter.get((numerator, denominator), 0.0) + held
    meter = max(by_meter, key=lambda meter: by_meter[meter], default=(1, 4))
    return meter if meter[0] > 1 else None


def _holding_times(onsets: np.ndarray, seconds: float) -> list[float]:
    """Seconds for which each entry of a tempo or meter map holds within the piece."""
    starts = np.minimum(onsets / TICKS_PER_SECOND, seconds)
    return np.diff(starts, append=seconds).tolist()
