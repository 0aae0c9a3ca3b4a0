"""Sentences about a piece in MidiCaps' manner: varied wording, another choice of facts each time, nothing invented.

MidiCaps (J. Melechovsky et al., "MidiCaps: A Large-scale MIDI Dataset with Text Captions", ISMIR 2024) has a language
model write its captions from such facts; here tables of phrases do, so that a caption says what the description holds
and no more.
"""

import random
from collections.abc import Mapping, Sequence, Set
from typing import Any

from midillm_jax.data.catalogue import Catalogue
from midillm_jax.data.describe import Description
from midillm_jax.music.terms import duration_word, listed, tempo_words, with_article
from midillm_jax.music.vocab import DRUM_PROGRAM, TICKS_PER_SECOND

_NAMED_INSTRUMENTS = 5
"""As many as MidiCaps names."""
_LEADING_SHARE = 0.5
"""Of the sounding time, from which an instrument is heard most."""
_SPARSE, _DENSE = 4.0, 20.0
"""Notes a second below and above which a caption says so: of 1,123 real pieces one in 40, and one in 7."""
_LOW, _HIGH = 52.0, 68.0
"""Mean pitches (E below middle C, A flat above it) below and above which it does: of those one in 35, and one in 39."""
_PLURALS = ("drums", "strings", "bells", "effects", "harmonics")
_PIECES = ("piece", "composition", "piece of music")
_OPENINGS = (
    "{A_piece} featuring {band}{no_drums}.",
    "{A_piece} for {band}{no_drums}.",
    "{A_piece} played by {band}{no_drums}.",
    "{A_piece} performed by {band}{no_drums}.",
    "This {piece} features {band}{no_drums}.",
    "This is {a_piece} for {band}{no_drums}.",
    "{Band} {play} {a_piece}{no_drums}.",
)
_BAND_OPENINGS = ("{Band} come together in {a_piece}{no_drums}.", "{Band} share {a_piece}{no_drums}.")
_SOLO_OPENINGS = ("{A_piece} for solo {band}{no_drums}.", "{A_piece} performed by a solo {band}{no_drums}.")
_GENRE_OPENINGS = (
    "{Genre}, played by {band}{no_drums}.",
    "{Genre}, for {band}{no_drums}.",
    "{Genre}, with {band}{no_drums}.",
    "{Genre}, {a_piece} featuring {band}{no_drums}.",
    "{Genre}, {a_piece} performed by {band}{no_drums}.",
)
_GRIDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("key", "meter", "tempo"): (
        "It is in the key of {key}, with a {meter} time signature and {a_tempo}.",
        "Set in {key} and {meter} time, it moves at {a_tempo}.",
        "The key is {key}, the time signature is {meter}, and it is played at {a_tempo}.",
        "Written in {key} with a {meter} time signature, it has {a_tempo}.",
        "With {a_tempo} and a {meter} time signature, it is in {key}.",
        "It has a {meter} time signature and {a_tempo}. The key is {key}.",
    ),
    ("key", "meter"): (
        "It is in {key} and {meter} time.",
        "It is written in {key} with a {meter} time signature.",
        "The key is {key} and the time signature is {meter}.",
    ),
    ("key", "tempo"): (
        "It is in the key of {key} and moves at {a_tempo}.",
        "Set in {key}, it has {a_tempo}.",
        "It is played at {a_tempo} in {key}.",
    ),
    ("meter", "tempo"): (
        "It has a {meter} time signature and {a_tempo}.",
        "The time signature is {meter} and the piece moves at {a_tempo}.",
        "Set in {meter} time, it moves at {a_tempo}.",
    ),
    ("key",): ("It is in the key of {key}.", "The key is {key}.", "It is written in {key}."),
    ("meter",): ("The time signature is {meter}.", "It is in {meter} time.", "It has a {meter} time signature."),
    ("tempo",): ("It moves at {a_tempo}.", "The piece has {a_tempo}.", "It is played at {a_tempo}."),
}
_GRID_CHANCES = {"key": 0.75, "meter": 0.75, "tempo": 0.85}
_PROGRESSIONS = (
    "The chord progression {chords} keeps coming back.",
    "The most frequent chord progression is {chords}.",
    "The main chord progression is {chords}.",
    "A recurring chord progression is {chords}.",
    "It often goes through the chords {chords}.",
)
_ALTERNATIONS = (
    "The harmony often alternates between {chords}.",
    "It often goes back and forth between the chords {chords}.",
    "The chords {chords} follow each other again and again.",
)
_ONCE = ("The chord progression is {chords}.", "The chords are {chords}.", "It goes through the chords {chords}.")
_NO_DRUMS = (" without drums", ", without any drums", ", but no drums")
_NO_DRUMS_SENTENCES = ("There are no drums.", "It has no drums.", "No drums are used.", "It is played without drums.")
_DRUMS_THROUGHOUT = ("The drums play throughout.", "Drums keep the beat from beginning to end.")
_LENGTHS = ("It lasts {duration}.", "It is {duration} long.", "The piece takes {duration}.")
_TEXTURES = {
    "sparse": ("The texture is sparse.", "There are few notes.", "It is sparse."),
    "dense": ("The texture is dense.", "There are many notes.", "It is dense, with many notes."),
    "low": ("It stays mostly in a low register.", "The register is low."),
    "high": ("It stays mostly in a high register.", "The register is high."),
    "one voice": ("It is a single line, one note at a time.", "The texture is monophonic.", "There are no chords."),
}
_LEADING = ("The {lead} {is} heard most.", "The {lead} {is} heard more than anything else.")
_MOODS = ("The mood is {mood}.", "Its mood is {mood}.", "It is {mood} in mood.")


def captions(description: Description, rng: random.Random, catalogue: Catalogue, count: int) -> list[str]:
    """``count`` captions, no two alike as far as the facts allow; a smaller count gives the first of them."""
    written: dict[str, None] = {}
    for _ in range(4 * count):
        if len(written) < count:
            written.setdefault(caption(description, rng, catalogue))
    return list(written)


def caption(description: Description, rng: random.Random, catalogue: Catalogue | None = None) -> str:
    """One to seven sentences: instruments and drums always, the other facts often, nothing that is not there."""
    catalogue = catalogue or Catalogue()
    facts = _facts(description, rng, catalogue)
    said = not description.drums and rng.random() < 0.5
    opening = rng.choice(_openings(description, catalogue))
    # Nobody says "with piano without drums".
    facts["no_drums"] = rng.choice(_NO_DRUMS[1:] if "with {band}" in opening else _NO_DRUMS) if said else ""
    mentioned = _describe_piece(description, rng, facts) if "piece}" in opening else set()
    details = _grid(description, rng, mentioned)
    if description.progression is not None and rng.random() < 0.6:
        details.append(_progression(description, rng))
    if not description.drums and not said and rng.random() < 0.7:
        details.append(rng.choice(_NO_DRUMS_SENTENCES))
    if description.drums_throughout and rng.random() < 0.3:
        details.append(rng.choice(_DRUMS_THROUGHOUT))
    if rng.random() < 0.4:
        details.append(_filled(rng, _LENGTHS, facts))
    if (textures := texture(description)) and rng.random() < 0.5:
        details.append(rng.choice(_TEXTURES[rng.choice(textures)]))
    if len(description.instruments) > 2 and description.instruments[0][1] >= _LEADING_SHARE and rng.random() < 0.4:
        details.append(_filled(rng, _LEADING, facts))
    if catalogue.mood and rng.random() < 0.8:
        details.append(_filled(rng, _MOODS, facts))
    rng.shuffle(details)
    if catalogue.composer and rng.random() < 0.3:
        details.append(f"The composer is {catalogue.composer.removesuffix('.')}.")
    if catalogue.title and rng.random() < 0.2:
        details.append(f"The title is {catalogue.title.rstrip('.')}.")
    return " ".join([_filled(rng, (opening,), facts), *details])


def _openings(description: Description, catalogue: Catalogue) -> tuple[str, ...]:
    if catalogue.genre:
        return _GENRE_OPENINGS
    if len(description.instrument_words) > 1:
        return (*_OPENINGS, *_BAND_OPENINGS)
    return (*_OPENINGS, *_SOLO_OPENINGS) if len(description.instruments) == 1 else _OPENINGS


def _describe_piece(description: Description, rng: random.Random, facts: dict[str, str]) -> set[str]:
    """Puts tempo and key or meter to the piece's own words now and then; returns which of them."""
    mentioned = set()
    piece = facts["piece"]
    speed = "" if description.bpm is None else tempo_words(description.bpm)[1]
    if speed.endswith(("slow", "fast")) and not speed.startswith("moderate") and rng.random() < 0.3:
        mentioned.add("tempo")
        piece = f"{speed} {piece}" if piece in _PIECES else f"{speed}, {piece}"
    if description.key is not None and rng.random() < 0.3:
        mentioned.add("key")
        piece += f" in {description.key.name}"
    elif description.meter is not None and rng.random() < 0.15:
        mentioned.add("meter")
        piece += " in {}/{} time".format(*description.meter)
    facts |= {"piece": piece, "a_piece": with_article(piece)}
    return mentioned


def _facts(description: Description, rng: random.Random, catalogue: Catalogue) -> dict[str, str]:
    words = description.instrument_words
    named = [word for word in words if word != "drums"][:_NAMED_INSTRUMENTS]
    more = len(words) - len(named) - description.drums
    band = [*named, *(["drums"] if description.drums else []), *(["other instruments"] if more else [])]
    length = duration_word(description.seconds)
    piece = length.replace("piece", rng.choice(_PIECES))
    lead = words[0] if words else ""
    several = len(band) > 1 or _is_plural(band[0])
    return {
        "band": listed(band),
        "play": "play" if several else "plays",
        "piece": piece,
        "a_piece": with_article(piece),
        "genre": ", ".join(catalogue.genre),
        "mood": listed(catalogue.mood),
        "duration": _spoken_duration(description.seconds),
        "lead": lead,
        "is": "are" if _is_plural(lead) else "is",
    }


def _is_plural(instrument: str) -> bool:
    return instrument.endswith(_PLURALS)


def _filled(rng: random.Random, phrases: Sequence[str], facts: Mapping[str, str]) -> str:
    """One of the phrases with its facts; a fact's name with a capital stands for the fact with one."""
    capitals = {name.capitalize(): value[:1].upper() + value[1:] for name, value in facts.items()}
    return rng.choice(phrases).format(**facts, **capitals)


def _grid(description: Description, rng: random.Random, mentioned: Set[str]) -> list[str]:
    """A sentence or two on key, meter and tempo, or some of them that were not mentioned yet."""
    facts = {}
    if description.key is not None:
        facts["key"] = description.key.name
    if description.meter is not None:
        facts["meter"] = "{}/{}".format(*description.meter)
    if description.bpm is not None:
        facts["tempo"] = facts["a_tempo"] = _a_tempo(description, rng)
    open_facts = facts.keys() - mentioned
    chosen = tuple(name for name in _GRID_CHANCES if rng.random() < _GRID_CHANCES[name] and name in open_facts)
    return [_filled(rng, _GRIDS[chosen], facts)] if chosen else []


def _a_tempo(description: Description, rng: random.Random) -> str:
    """ "a slow tempo", "an Allegro tempo of 120 BPM", "a fast tempo that changes"."""
    assert description.bpm is not None
    italian, plain = tempo_words(description.bpm)
    tempo = with_article(f"{rng.choice((plain, italian))} tempo")
    if not description.steady:
        return f"{tempo} that changes"
    number = f"{description.bpm:.0f} {rng.choice(('BPM', 'BPM', 'beats per minute'))}"
    return rng.choice((tempo, f"{tempo} of {number}", f"a tempo of {number}"))


def _progression(description: Description, rng: random.Random) -> str:
    assert description.progression is not None
    names = [chord.name(description.spelling) for chord in description.progression.chords]
    repeated = _ALTERNATIONS if len(names) == 2 else _PROGRESSIONS
    phrases = _ONCE if description.progression.occurrences == 1 else repeated
    return _filled(rng, phrases, {"chords": listed(names)})


def texture(description: Description) -> list[str]:
    """Words for what stands out in how thick a piece is and where it lies; most pieces have none."""
    found = []
    if description.notes_a_second < _SPARSE and not description.one_voice:
        found.append("sparse")
    if description.notes_a_second >= _DENSE:
        found.append("dense")
    if description.pitch is not None and description.pitch < _LOW:
        found.append("low")
    if description.pitch is not None and description.pitch >= _HIGH:
        found.append("high")
    if description.one_voice:
        found.append("one voice")
    return found


def _spoken_duration(seconds: float) -> str:
    """ "about 40 seconds" or "about 3 minutes"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} second{'s' if round(seconds) > 1 else ''}"
    return f"about {round(seconds / 60)} minutes"


def columns(description: Description, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """MidiCaps' columns for what is known; a column without a fact is left out.

    ``drums``, ``notes_per_second`` and ``texture`` are ours. ``all_chords`` has "N" where there is no chord.
    """
    catalogue = catalogue or Catalogue()
    row: dict[str, Any] = {}
    if catalogue.genre:
        row["genre"] = list(catalogue.genre)
    if catalogue.mood:
        row["mood"] = list(catalogue.mood)
    if description.key is not None:
        row["key"] = description.key.name
    if description.meter is not None:
        row["time_signature"] = "{}/{}".format(*description.meter)
    if description.bpm is not None:
        row |= {"tempo": round(description.bpm), "tempo_word": tempo_words(description.bpm)[0]}
    row |= {"duration": round(description.seconds), "duration_word": duration_word(description.seconds)}
    if description.progression is not None:
        row["chord_summary"] = [chord.name(description.spelling) for chord in description.progression.chords]
        row["chord_summary_occurence"] = description.progression.occurrences  # MidiCaps' spelling
    row["instrument_summary"] = list(description.instrument_words)
    row["instrument_numbers_sorted"] = [
        *(program for program, _ in description.instruments),
        *([DRUM_PROGRAM] if description.drums else []),
    ]
    if description.harmony is not None:
        chords, starts = description.harmony.chords, description.harmony.starts
        names = {chord: "N" if chord is None else chord.name(description.spelling) for chord in set(chords)}
        row["all_chords"] = [names[chord] for chord in chords]
        row["all_chords_timestamps"] = [round(start / TICKS_PER_SECOND, 2) for start in starts]
    row |= {"drums": description.drums, "notes_per_second": round(description.notes_a_second, 1)}
    if words := texture(description):
        row["texture"] = words
    return row
