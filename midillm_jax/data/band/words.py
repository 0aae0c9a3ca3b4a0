"""Captions for the small band's pieces: what is in the file, in MidiCaps' manner, in varied wording."""

import itertools
import random
from typing import Any

from midillm_jax.data.band.compose import BandPiece, Profile
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.terms import duration_word, listed, tempo_words, with_article
from midillm_jax.music.vocab import DRUM_PROGRAM

_SMALL = (
    "{A_noun} {drums}, played by {pitched} in {key} at {bpm} BPM.",
    "{A_speed} {noun} in {key} {drums}, for {pitched}.",
    "{Pitched} {play} {a_noun} {drums}, in {key} and {meter} time.",
    "{A_noun} in {meter} for {pitched}, {drums}, at {a_speed} tempo of {bpm} BPM.",
)
_OPENINGS = (
    "{A_speed} {noun} featuring {band}{no_drums}.",
    "{A_noun} in {key} with {band}{no_drums}, about {seconds} seconds long.",
    "{Band} {band_play} {a_speed} {noun}{no_drums}.",
    "This {length} is {a_noun} for {band}{no_drums}.",
    "{A_noun} played by {band}{no_drums} at {a_speed} tempo.",
    "Lasting about {seconds} seconds, this {noun} features {band}{no_drums}.",
)
_GRIDS = (
    "It is in the key of {key}, with a {meter} time signature and a tempo of {bpm} BPM.",
    "Set in {key} and {meter} time, it moves at {bpm} BPM.",
    "The key is {key}, the time signature is {meter}, and the tempo is {italian} at {bpm} beats per minute.",
    "Written in {key} with a {meter} time signature, it keeps {an_italian} tempo of {bpm} BPM.",
    "The tempo is {speed} at {bpm} BPM, the meter is {meter} and the key is {key}.",
)
_HARMONIES = (
    "The chord progression is {chords}.",
    "It opens with the chords {chords}.",
    "The harmony begins with {chords}.",
    "The first phrase is built on the chords {chords}.",
)
_NO_DRUMS = (" without drums", ", but no drums", ", without any drums", ", with no drums")
_NO_DRUMS_SENTENCES = (
    "There are no drums.",
    "It has no drums.",
    "No drums are used.",
    "It is played without drums.",
)
_DRUMS_SENTENCES = (
    "The drums keep the beat.",
    "Drums mark the beat throughout.",
    "The drums play throughout.",
    "It is played with drums.",
)


def instrument_words(programs: dict[str, int]) -> list[str]:
    """Captions' words for the instruments, in the order of the roles, each once."""
    return list(dict.fromkeys(CAPTION_WORDS[program] for program in programs.values()))


def _facts(rng: random.Random, piece: BandPiece) -> dict[str, Any]:
    italian, speed = tempo_words(piece.bpm)
    noun = rng.choice(piece.style.nouns)
    band = instrument_words(piece.programs)
    pitched = [word for word in band if word != "drums"]
    chords = [name for name, _ in itertools.groupby(piece.progression)]
    facts = {
        "noun": noun,
        "a_noun": with_article(noun),
        "speed": speed,
        "a_speed": with_article(speed),
        "italian": italian,
        "an_italian": with_article(italian),
        "bpm": piece.bpm,
        "key": piece.key.name,
        "meter": "{}/{}".format(*piece.style.meter),
        "band": listed(band),
        "band_play": "plays" if len(band) == 1 else "play",
        "pitched": listed(pitched),
        "play": "plays" if len(pitched) == 1 else "play",
        "chords": listed(chords),
        "seconds": round(piece.duration),
        "length": duration_word(piece.duration),
    }
    return facts | {key[0].upper() + key[1:]: _capital(str(value)) for key, value in facts.items()}


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


def caption(rng: random.Random, piece: BandPiece, profile: Profile) -> str:
    """Says what is in the piece: one sentence in the small profile, two to five in the full one.

    Drums that play are always named; of the pieces without, seven in eight say so (small: all).
    """
    facts = _facts(rng, piece)
    has_drums = "drums" in piece.programs
    if profile == "small":
        facts["drums"] = "with drums" if has_drums else rng.choice(("without drums", "with no drums"))
        return rng.choice(_SMALL).format(**facts)
    said = not has_drums and rng.random() < 0.5
    opening = rng.choice(_OPENINGS).format(**facts, no_drums=rng.choice(_NO_DRUMS) if said else "")
    details = [rng.choice(_GRIDS).format(**facts)]
    if rng.random() < 0.5:
        details.append(rng.choice(_HARMONIES).format(**facts))
    if rng.random() < 0.6:
        details.append(_roles(rng, piece))
    if not has_drums and not said and rng.random() < 0.75:
        details.append(rng.choice(_NO_DRUMS_SENTENCES))
    if has_drums and rng.random() < 0.5:
        details.append(rng.choice(_DRUMS_SENTENCES))
    rng.shuffle(details)
    return " ".join([opening, *details])


def _roles(rng: random.Random, piece: BandPiece) -> str:
    """Who plays what."""
    words = {role: CAPTION_WORDS[program] for role, program in piece.programs.items()}
    clauses = []
    if "melody" in words and words["melody"] == words.get("chords"):
        clauses.append(_doing(words["melody"], "plays", rng.choice(("the melody and the chords", "lead and chords"))))
    else:
        if "melody" in words:
            verb, part = rng.choice((("plays", "the melody"), ("carries", "the melody"), ("plays", "the lead")))
            clauses.append(_doing(words["melody"], verb, part))
        if "chords" in words:
            verb, part = rng.choice((("plays", "the chords"), ("provides", "the chords"), ("fills", "in the harmony")))
            clauses.append(_doing(words["chords"], verb, part))
    if "bass" in words:
        verb, part = rng.choice((("plays", "the bass line"), ("lays", "down the bass line")))
        clauses.append(_doing(words["bass"], verb, part))
    sentence = _capital(listed(clauses))
    if "melody" not in words and rng.random() < 0.5:
        sentence += "; there is no lead melody"
    return sentence + "."


def _doing(instrument: str, verb: str, part: str) -> str:
    """ "the violin carries the melody", "the synth strings carry the melody"."""
    if instrument.endswith("strings"):
        verb = "carry" if verb == "carries" else verb.removesuffix("s")
    return f"the {instrument} {verb} {part}"


def row(rng: random.Random, piece: BandPiece, profile: Profile, location: str) -> dict[str, Any]:
    """The piece's line of captions.jsonl: MidiCaps' columns, and ``drums`` and ``roles`` of our own."""
    return {
        "location": location,
        "caption": caption(rng, piece, profile),
        "genre": [piece.style.name],
        "key": piece.key.name,
        "time_signature": "{}/{}".format(*piece.style.meter),
        "tempo": piece.bpm,
        "tempo_word": tempo_words(piece.bpm)[0],
        "duration": round(piece.duration),
        "duration_word": duration_word(piece.duration),
        "chord_summary": list(piece.progression),
        "instrument_summary": instrument_words(piece.programs),
        "instrument_numbers_sorted": _by_share(piece),
        "all_chords": [name for _, name in piece.chords],
        "all_chords_timestamps": [round(piece.seconds(units), 3) for units, _ in piece.chords],
        "drums": "drums" in piece.programs,
        "roles": dict(piece.programs),
    }


def _by_share(piece: BandPiece) -> list[int]:
    """The programs, most sounding time first; drums last."""
    sounding = dict.fromkeys(sorted(piece.programs.values()), 0)
    for note in piece.notes:
        sounding[piece.programs[note.role]] += note.end - note.start
    return sorted(sounding, key=lambda program: (program == DRUM_PROGRAM, -sounding[program]))
