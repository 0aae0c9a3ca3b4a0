"""Music text that the small band's rules generate: tunes in ABC notation and sentences of theory."""

import random
from collections.abc import Callable

from midillm_jax.data.band.compose import STYLES, BandPiece, Profile, bar_steps, draw
from midillm_jax.data.band.harmony import LETTERS, Key, chord
from midillm_jax.data.band.words import caption
from midillm_jax.music.instruments import CAPTION_WORDS, PROGRAM_FAMILIES, PROGRAM_NAMES
from midillm_jax.music.terms import listed, tempo_words, with_article

_ABC_BARS = 8
_ABC_SIGNS = {"": "=", "b": "_", "#": "^", "bb": "__", "##": "^^"}
_ACCIDENTAL_WORDS = {"b": " flat", "#": " sharp"}
_INTERVALS = {
    1: "major second",
    2: "major third",
    3: "perfect fourth",
    4: "perfect fifth",
    5: "major sixth",
    6: "major seventh",
    7: "octave",
}
"""By steps of the major scale."""
_DEGREES = ("tonic", "supertonic", "mediant", "subdominant", "dominant", "submediant", "leading tone")
_METERS = {
    "4/4": "four quarter notes",
    "3/4": "three quarter notes",
    "6/8": "six eighth notes, felt as two groups of three",
}


def document(rng: random.Random, profile: Profile) -> str:
    """A tune in ABC, a paragraph on an imaginary piece and some theory; no piece that the band writes out."""
    tune = draw(rng, profile)
    while "melody" not in tune.programs:
        tune = draw(rng, profile)
    sentences = [caption(rng, draw(rng, profile), profile) for _ in range(2)]
    sentences += [rng.choice(_THEORY)(rng) for _ in range(5)]
    rng.shuffle(sentences)
    number = rng.randint(1, 99)
    title = f"{rng.choice(tune.style.nouns).capitalize()} No. {number} in {tune.key.name}"
    return f"{abc(tune, number, title)}\n\n{' '.join(sentences)}\n"


def abc(piece: BandPiece, number: int, title: str) -> str:
    """The melody's first eight bars and its last one in ABC notation (version 2.1), with chord symbols."""
    lines = [
        f"X:{number}",
        f"T:{title}",
        f"R:{piece.style.name}",
        "M:{}/{}".format(*piece.style.meter),
        "L:1/8",
        f"Q:1/4={piece.bpm}",
        f"K:{piece.key.signature}",
    ]
    played = [number for number, bar in enumerate(piece.melody) if bar]
    kept = [*played[:-1][:_ABC_BARS], played[-1]]
    bars = [_abc_bar(piece, number) for number in kept]
    ends = ["|\n" if place % 4 == 3 else "|" for place in range(len(bars))]
    ends[-1] = "|]"
    return (
        "\n".join(lines) + "\n" + " ".join(bar + end for bar, end in zip(bars, ends, strict=True)).replace("\n ", "\n")
    )


def _abc_bar(piece: BandPiece, number: int) -> str:
    """One bar: notes and rests that fill it, beamed by the beat, with the chords above."""
    symbols = {
        (units - number * piece.bar_units) // 6: name
        for units, name in piece.chords
        if number * piece.bar_units <= units < (number + 1) * piece.bar_units
    }
    signature = {name[0]: name[1:] for name in piece.key.note_names}
    in_force: dict[str, str] = {}
    beat = 6 if piece.style.meter == (6, 8) else 4
    at = 0
    text = ""
    for step, steps, pitch in (*piece.melody[number], (bar_steps(piece.style), 0, 0)):
        if step > at:
            text += _symbol(symbols, at) + "z" + _length(step - at)
        if steps == 0:
            break
        if step and step % beat == 0:
            text += " "
        name, octave = _spelling(pitch, piece.key)
        letter, accidental = name[0], name[1:]
        place = f"{letter}{octave}"
        sign = ""
        if in_force.setdefault(place, signature[letter]) != accidental:
            sign = _ABC_SIGNS[accidental]
            in_force[place] = accidental
        text += _symbol(symbols, step) + sign + _abc_letter(letter, octave) + _length(steps)
        at = step + steps
    return text


def _symbol(symbols: dict[int, str], step: int) -> str:
    """The chord symbol due at or before a step, once."""
    due = [first for first in symbols if first <= step]
    names = [symbols.pop(first) for first in due]
    return f'"{names[-1]}"' if names else ""


def _length(steps: int) -> str:
    """Sixteenths as a multiple of ABC's unit, the eighth."""
    if steps % 2 == 0:
        return "" if steps == 2 else str(steps // 2)
    return "/2" if steps == 1 else f"{steps}/2"


def _spelling(pitch: int, key: Key) -> tuple[str, int]:
    """The note's name in the key ("Eb") and its octave (middle C begins octave 4)."""
    pitch_class = pitch % 12
    if pitch_class in key.scale:
        name = key.note_names[key.scale.index(pitch_class)]
    else:
        # As scale_under bends the scale: minor raises a degree, major lowers one.
        shift, sign, undone = (-1, "#", "b") if key.mode == "minor" else (1, "b", "#")
        plain = key.note_names[key.scale.index((pitch_class + shift) % 12)]
        name = plain[:-1] if plain.endswith(undone) else plain + sign
    offset = name.count("#") - name.count("b")
    return name, (pitch - offset) // 12 - 1


def _abc_letter(letter: str, octave: int) -> str:
    if octave >= 5:
        return letter.lower() + "'" * (octave - 5)
    return letter + "," * (4 - octave)


def _key(rng: random.Random) -> Key:
    return Key(rng.randrange(12), rng.choice(("major", "minor")))


def _spoken(name: str) -> str:
    return name[0] + _ACCIDENTAL_WORDS.get(name[1:], "")


def _about_signature(rng: random.Random) -> str:
    key = _key(rng)
    altered = [name for name in key.note_names if len(name) > 1]
    if not altered:
        return f"The key of {key.name} has no sharps and no flats."
    kind = "sharp" if altered[0].endswith("#") else "flat"
    count = f"{len(altered)} {kind}{'s' if len(altered) > 1 else ''}"
    return f"The key of {key.name} has {count}: {listed([_spoken(name) for name in altered])}."


def _about_scale(rng: random.Random) -> str:
    key = _key(rng)
    notes = listed(list(key.note_names))
    return rng.choice(("The scale of {} is {}.", "In {} the notes are {}.", "{} is made of the notes {}.")).format(
        key.name, notes
    )


def _about_relative(rng: random.Random) -> str:
    key = Key(rng.randrange(12), "major")
    minor = Key((key.tonic + 9) % 12, "minor")
    return rng.choice(
        (
            f"The relative minor of {key.name} is {minor.name}.",
            f"{minor.name} shares its key signature with {key.name}.",
        )
    )


def _about_primary_chords(rng: random.Random) -> str:
    key = _key(rng)
    numerals = ("I", "IV", "V") if key.mode == "major" else ("i", "iv", "V")
    names = listed([chord(numeral, key).name for numeral in numerals])
    return rng.choice(
        (
            f"In {key.name} the chords {listed(numerals)} are {names}.",
            f"The primary chords of {key.name} are {names}.",
        )
    )


def _about_chord_tones(rng: random.Random) -> str:
    key = _key(rng)
    numeral = rng.choice(("I", "ii7", "IV", "V7", "vi7") if key.mode == "major" else ("i", "iv7", "V7", "VI"))
    built = chord(numeral, key)
    degree = LETTERS.index(built.name[0])
    names = [_chord_tone(degree, number, tone) for number, tone in enumerate(built.tones)]
    return f"The chord {built.name} is made of {listed(names)}; in {key.name} it is the chord {numeral}."


def _chord_tone(root_letter: int, number: int, tone: int) -> str:
    letter = LETTERS[(root_letter + 2 * number) % 7]
    offset = (tone - (0, 2, 4, 5, 7, 9, 11)[LETTERS.index(letter)] + 6) % 12 - 6
    return letter + ("#" * offset if offset > 0 else "b" * -offset)


def _about_cadence(rng: random.Random) -> str:
    key = _key(rng)
    tonic = chord("I" if key.mode == "major" else "i", key).name
    dominant = chord("V7", key).name
    return rng.choice(
        (
            f"A cadence from {dominant} to {tonic} ends a piece in {key.name}.",
            f"In {key.name} the chord {dominant} leads home to {tonic}.",
        )
    )


def _about_progression(rng: random.Random) -> str:
    style = rng.choice(STYLES)
    key = Key(rng.randrange(12), rng.choice(style.modes))
    bars = style.progressions[key.mode][rng.choice(sorted(style.progressions[key.mode]))]
    names = [chord(numeral, key).name for text in bars for numeral in text.split()]
    return rng.choice(
        (
            f"{with_article(style.name).capitalize()} in {key.name} may use the chords {listed(names)}.",
            f"A chord progression for {style.name} in {key.name} is {listed(names)}.",
        )
    )


def _about_meter(rng: random.Random) -> str:
    style = rng.choice(STYLES)
    meter = "{}/{}".format(*style.meter)
    return rng.choice(
        (
            f"A bar of {meter} holds {_METERS[meter]}.",
            f"{with_article(rng.choice(style.nouns)).capitalize()} is in {meter} time.",
            f"The time signature of {with_article(rng.choice(style.nouns))} is {meter}.",
        )
    )


def _about_tempo(rng: random.Random) -> str:
    bpm = rng.randint(60, 180)
    italian, speed = tempo_words(bpm)
    return rng.choice(
        (
            f"At {bpm} BPM a quarter note lasts {60 / bpm:.2f} seconds.",
            f"A tempo of {bpm} beats per minute is {speed}; the Italian word is {italian}.",
            f"{italian} is {with_article(speed)} tempo, for example {bpm} BPM.",
        )
    )


def _about_style(rng: random.Random) -> str:
    style = rng.choice(STYLES)
    groove = rng.choice(style.grooves)
    drums = listed([f"the {name}" for name in groove.drums])
    lead = CAPTION_WORDS[rng.choice(style.melody_programs)]
    chords = CAPTION_WORDS[rng.choice(style.chord_programs)]
    bass = CAPTION_WORDS[rng.choice(style.bass_programs)]
    noun = rng.choice(style.nouns)
    return rng.choice(
        (
            f"In {with_article(noun)} with drums the drummer plays {drums}.",
            f"{with_article(noun).capitalize()} without drums may have {chords} and {bass}.",
            f"The melody of {with_article(noun)} may be played by {lead}, with {chords} for the chords and {bass}.",
            f"{with_article(noun).capitalize()} goes at {style.tempi[0]} to {style.tempi[1]} BPM.",
        )
    )


def _about_instrument(rng: random.Random) -> str:
    program = rng.randrange(128)
    family = PROGRAM_FAMILIES[program]
    return rng.choice(
        (
            f"{PROGRAM_NAMES[program]} belongs to the {family} family.",
            f"The instrument {CAPTION_WORDS[program]} is found in the {family} family of General MIDI.",
        )
    )


def _about_interval(rng: random.Random) -> str:
    key = Key(rng.randrange(12), "major")
    degree = rng.choice(sorted(_INTERVALS))
    interval = with_article(_INTERVALS[degree]).capitalize()
    return f"{interval} above {_spoken(key.tonic_name)} is {_spoken(key.note_names[degree % 7])}."


def _about_degree(rng: random.Random) -> str:
    key = Key(rng.randrange(12), "major")
    degree = rng.randrange(7)
    return f"The {_DEGREES[degree]} of {key.name} is {_spoken(key.note_names[degree])}."


_THEORY: tuple[Callable[[random.Random], str], ...] = (
    _about_signature,
    _about_scale,
    _about_relative,
    _about_primary_chords,
    _about_chord_tones,
    _about_cadence,
    _about_progression,
    _about_meter,
    _about_tempo,
    _about_style,
    _about_instrument,
    _about_interval,
    _about_degree,
)
