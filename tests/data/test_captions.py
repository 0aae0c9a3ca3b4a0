"""Sentences about a piece: every fact in them is one of the description's, in varied wording."""

import collections
import random
import re
from pathlib import Path

import pytest

from midillm_jax.data.captions import caption, captions, texture
from midillm_jax.data.catalogue import Catalogue
from midillm_jax.data.demo import write_band
from midillm_jax.data.describe import Description, describe
from midillm_jax.data.harmony import Chord, Progression
from midillm_jax.data.tonality import Key
from midillm_jax.evaluation.prompt_players import asks_for_drums
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import read_midi
from midillm_jax.music.terms import DURATION_BANDS, listed, tempo_words

PIANO, GUITAR, BASS, FLUTE = 0, 24, 33, 73
EVERYTHING = Description(
    instruments=((PIANO, 0.6), (BASS, 0.3), (FLUTE, 0.1)),
    drums=True,
    drums_throughout=True,
    bpm=100,
    steady=True,
    meter=(3, 4),
    free=False,
    key=Key(10, "major"),
    spelling=Key(10, "major"),
    harmony=None,
    progression=Progression((Chord(10, ""), Chord(7, "m7"), Chord(5, "7")), 4),
    voices=3.0,
    pitch=70.0,
    seconds=39.6,
    notes=900,
)
NOTHING = Description(
    instruments=((PIANO, 1.0),),
    drums=False,
    drums_throughout=False,
    bpm=None,
    steady=False,
    meter=None,
    free=True,
    key=None,
    spelling=None,
    harmony=None,
    progression=None,
    voices=3.0,
    pitch=60.0,
    seconds=100.0,
    notes=800,
)

CHORD = r"[A-G][b#]?(?:maj7|m7b5|dim7|m7|dim|aug|sus4|m|7|5)?"
CHORDS = re.compile(rf"\b((?:{CHORD}, )*{CHORD}) and ({CHORD})(?=[ .])")
TEXTURES = {
    "sparse": r"sparse|few notes",
    "dense": r"dense|many notes",
    "low": r"\blow\b",
    "high": r"\bhigh\b",
    "one voice": r"single line|monophonic|no chords",
}
SPEED = r"\b((?:very |extremely )?(?:slow|fast)),? (?:(?:very )?short|long|piece|composition)"
GENRES_AND_MOODS = re.compile(
    r"\b(?:pop|rock|jazz|blues|country|folk|metal|electronic|classical|soundtrack|ambient|techno|dance|christmas|song"
    r"|waltz|happy|sad|melodic|energetic|dark|relaxing|love|epic|film|meditative|romantic|emotional|calm|cheerful"
    r"|lively|gentle|uplifting|lovely|peaceful|dreamy|corporate|genre|mood|style|feel\w*|atmosphere|vibe)\b",
    re.IGNORECASE,
)


def told(pattern: str, texts: list[str]) -> set[str]:
    return {match for text in texts for match in re.findall(pattern, text)}


def assert_true(text: str, description: Description) -> collections.Counter[str]:
    """Reads the facts back out of a caption and holds them to the description; counts them."""
    found = collections.Counter[str]()
    for key in re.findall(r"\b[A-G][b#]? (?:major|minor)\b", text):
        assert description.key is not None
        assert key == description.key.name
        found["key"] += 1
    for meter in re.findall(r"\b\d+/\d+\b", text):
        assert description.meter is not None
        assert meter == "{}/{}".format(*description.meter)
        found["meter"] += 1
    for number in re.findall(r"(\d+) (?:BPM|beats per minute)", text):
        assert description.bpm is not None
        assert int(number) == round(description.bpm)
        assert description.steady
        found["BPM"] += 1
    for word in re.findall(r"\ban? ((?:very |moderately |extremely )?\w+) tempo\b", text):
        assert description.bpm is not None
        assert word in tempo_words(description.bpm)
        found["tempo word"] += 1
    if match := re.search(SPEED, text):
        assert description.bpm is not None
        assert match[1].lower() == tempo_words(description.bpm)[1]
        found["speed"] += 1
    assert ("tempo that changes" in text) <= (description.bpm is not None and not description.steady)
    for first, last in CHORDS.findall(text):
        assert description.progression is not None
        names = [chord.name(description.spelling) for chord in description.progression.chords]
        assert [*first.split(", "), last] == names
        found["chords"] += 1
    for amount, unit in re.findall(r"about (\d+) (second|minute)s?\b", text):
        assert abs(int(amount) * {"second": 1, "minute": 60}[unit] - description.seconds) <= (
            31 if unit[0] == "m" else 1
        )
        found["length"] += 1
    for name, words in TEXTURES.items():
        if re.search(words, text):
            assert name in texture(description), text
            found[name] += 1
    if match := re.search(r"The ([\w ]+) (?:is|are) heard mo", text):
        assert match[1] == description.instrument_words[0]
        assert description.instruments[0][1] >= 0.5
        found["leading"] += 1
    if re.search("drums play throughout|keep the beat", text):
        assert description.drums_throughout
        found["drums throughout"] += 1
    wanted = asks_for_drums(text)
    assert wanted is description.drums or (wanted is None and not description.drums)
    found["drums"] += wanted is not None
    words = [word for word in description.instrument_words if word != "drums"]
    band = [*words[:5], *(["drums"] if description.drums else []), *(["other instruments"] if len(words) > 5 else [])]
    assert listed(band).lower() in text.lower()
    return found


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> list[Description]:
    """Sixty made-up pieces as they are described."""
    out: list[Description] = []
    for profile in ("full", "small"):
        folder: Path = tmp_path_factory.mktemp("band") / profile
        write_band(folder, 30, seed=12, profile=profile, documents=0)
        out += [describe(read_midi(path.read_bytes())) for path in sorted((folder / "midi").iterdir())]
    return out


def test_every_fact_in_a_caption_is_one_of_the_piece(described: list[Description]) -> None:
    found = collections.Counter[str]()
    for number, description in enumerate([*described, EVERYTHING, NOTHING]):
        for text in captions(description, random.Random(number), Catalogue(), 12):
            found += assert_true(text, description)
    expected = {"key", "meter", "BPM", "tempo word", "chords", "length", "sparse", "low", "leading", "drums", "speed"}
    assert all(found[fact] > 10 for fact in expected | {"drums throughout"}), found


def test_a_fact_is_told_once() -> None:
    for seed in range(300):
        found = assert_true(caption(EVERYTHING, random.Random(seed)), EVERYTHING)
        assert max(found[fact] for fact in ("key", "meter", "BPM", "chords", "length")) <= 1
        assert not (found["speed"] and found["tempo word"])


def test_every_fact_is_told_now_and_then_and_left_out_now_and_then() -> None:
    counts = collections.Counter[str]()
    for seed in range(200):
        counts.update(assert_true(caption(EVERYTHING, random.Random(seed)), EVERYTHING).keys())
    assert counts["drums"] == 200
    for fact in ("key", "meter", "BPM", "tempo word", "chords", "length", "high", "dense", "leading"):
        assert 15 < counts[fact] < 185, (fact, counts)


def test_nothing_is_said_of_what_is_not_known() -> None:
    texts = captions(NOTHING, random.Random(0), Catalogue(), 60)
    assert not [text for text in texts if re.search(r"BPM|tempo|time\b|key|chord|major|minor|\d/\d", text)]


def test_genre_and_mood_are_never_invented(described: list[Description]) -> None:
    for number, description in enumerate([*described, EVERYTHING, NOTHING]):
        for text in captions(description, random.Random(number), Catalogue(), 8):
            # "hammond organ", "rock organ" and "electric piano" are instruments.
            for word in sorted(CAPTION_WORDS, key=len, reverse=True):
                text = re.sub(rf"\b{re.escape(word)}\b", "", text, flags=re.IGNORECASE)
            assert not GENRES_AND_MOODS.search(text), text


def test_genre_mood_composer_and_title_are_the_person_s_own() -> None:
    catalogue = Catalogue(("slow air", "lament"), ("dark", "calm"), "A. Nother", "The Hill...")
    texts = captions(EVERYTHING, random.Random(0), catalogue, 150)
    assert all(text.startswith("Slow air, lament") for text in texts)
    assert told(r"mood is ([^.]*)\.|It is ([^.]*) in mood", texts) == {("dark and calm", ""), ("", "dark and calm")}
    for sentence in ("The composer is A. Nother.", "The title is The Hill."):
        assert 0 < sum(sentence in text for text in texts) < 150
    assert not any(".." in text for text in texts)


def test_a_changing_tempo_is_given_without_a_number() -> None:
    changing = Description(**{**EVERYTHING.__dict__, "bpm": 60.0, "steady": False})
    texts = captions(changing, random.Random(1), Catalogue(), 60)
    assert not any("BPM" in text or "beats per minute" in text for text in texts)
    assert told(r"an? ([\w ]*) tempo that changes", texts) == {"slow", "Adagio"}


def test_a_progression_is_told_as_what_it_is() -> None:
    def texts(chords: tuple[Chord, ...], occurrences: int) -> list[str]:
        piece = Description(**{**EVERYTHING.__dict__, "progression": Progression(chords, occurrences)})
        return captions(piece, random.Random(2), Catalogue(), 80)

    two, three = (Chord(0, ""), Chord(7, "7")), (Chord(2, "m7"), Chord(7, "7"), Chord(0, ""))
    for sentence in [text for text in re.split(r"(?<=\.) ", " ".join(texts(two, 6))) if "C and G7" in text]:
        assert re.search("alternates|back and forth|each other", sentence)
    for sentence in [text for text in re.split(r"(?<=\.) ", " ".join(texts(three, 1))) if "G7 and C" in text]:
        assert not re.search("often|recurring|frequent|main|coming back", sentence)
    for sentence in [text for text in re.split(r"(?<=\.) ", " ".join(texts(three, 5))) if "G7 and C" in text]:
        assert re.search("often|recurring|frequent|main|coming back", sentence)


def test_most_captions_of_pieces_without_drums_say_so() -> None:
    texts = [caption(NOTHING, random.Random(seed)) for seed in range(200)]
    denials = [len(re.findall("no drums|without (?:any )?drums", text, re.IGNORECASE)) for text in texts]
    assert set(denials) == {0, 1}
    assert 150 < sum(denials) < 200
    assert denials == [text.count("drums") for text in texts]


def test_wording_varies_and_a_seed_holds() -> None:
    texts = captions(EVERYTHING, random.Random(5), Catalogue(), 100)
    assert len(set(texts)) == 100
    assert texts == captions(EVERYTHING, random.Random(5), Catalogue(), 100)
    assert texts[:7] == captions(EVERYTHING, random.Random(5), Catalogue(), 7)
    assert len({text.split(".")[0] for text in texts}) > 20


def test_grammar_of_one_and_of_many() -> None:
    solo = captions(NOTHING, random.Random(0), Catalogue(), 60)
    assert any(text.startswith("Piano plays a ") for text in solo)
    assert any("solo piano" in text for text in solo)
    assert not any(re.search("Piano (?:play|come|share) ", text) for text in solo)
    programs = (0, 24, 32, 40, 56, 65, 73)
    many = Description(**{**NOTHING.__dict__, "instruments": tuple((program, 1 / 7) for program in programs)})
    for text in captions(many, random.Random(0), Catalogue(), 40):
        assert "alto saxophone" not in text
        assert "trumpet and other instruments" in text
    drums = Description(**{**NOTHING.__dict__, "instruments": (), "drums": True, "voices": 0.0, "pitch": None})
    for text in captions(drums, random.Random(0), Catalogue(), 20):
        assert re.match(r"Drums play|.*(?:featur\w+|for|by) drums\.", text)
    strings = Description(**{**EVERYTHING.__dict__, "instruments": ((44, 0.6), (0, 0.3), (73, 0.1))})
    texts = captions(strings, random.Random(0), Catalogue(), 60)
    assert told(r"The tremolo strings (\w+) heard", texts) == {"are"}


def test_nothing_is_with_this_without_that() -> None:
    texts = captions(NOTHING, random.Random(4), Catalogue(genre=("slow air",)), 60)
    assert any("with piano, without any drums" in text for text in texts)
    assert not any("with piano without" in text for text in texts)


def test_articles_and_capitals() -> None:
    for seed in range(300):
        text = caption(EVERYTHING, random.Random(seed))
        assert not re.search(r"\b[aA] [aeioAEIO]\w|\b[aA]n [^aeioAEIO8]", text), text
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=\.) ", text)), text
        assert text.endswith(".")


def test_words_for_lengths_are_those_of_midicaps() -> None:
    for seconds, word in [(limit - 1, word) for limit, word in DURATION_BANDS[:-1]]:
        piece = Description(**{**NOTHING.__dict__, "seconds": float(seconds)})
        texts = captions(piece, random.Random(3), Catalogue(), 30)
        pattern = word.replace("piece", "(?:piece|composition|piece of music)")
        assert all(re.search(rf"\b{pattern}\b", text) for text in texts)
