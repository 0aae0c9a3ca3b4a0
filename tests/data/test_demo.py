"""The small band: what its captions say is what its files hold, and a seed is a promise."""

import collections
import dataclasses
import io
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest

from midillm_jax.data.band.compose import STYLES, UNITS_PER_STEP, Profile, bar_steps, draw
from midillm_jax.data.band.harmony import Key, chord, scale_under, voicing
from midillm_jax.data.band.styles import DRUM_KEYS, FILLS
from midillm_jax.data.band.texts import abc, document
from midillm_jax.data.demo import midi_bytes, write_band
from midillm_jax.data.describe import describe
from midillm_jax.errors import UserError
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import NoteTable, read_midi

PROFILES: tuple[Profile, ...] = ("full", "small")
PIECES = 90
NO_DRUMS = ("without drums", "without any drums", "no drums")


@pytest.fixture(scope="module", params=PROFILES)
def band(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("band") / request.param
    write_band(out, PIECES, seed=3, profile=request.param, documents=12)
    return request.param, out


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


def table_of(out: Path, row: dict[str, Any]) -> NoteTable:
    return read_midi((out / row["location"]).read_bytes())


def test_columns_are_what_the_files_hold(band: tuple[str, Path]) -> None:
    _, out = band
    for row in rows_of(out):
        table = table_of(out, row)
        assert sorted(table.programs()) == sorted(row["instrument_numbers_sorted"])
        assert set(row["roles"].values()) == set(table.programs())
        assert (128 in table.programs()) == row["drums"]
        assert [round(60e6 / tempo) for tempo in table.tempos[:, 1]] == [row["tempo"]]
        assert [f"{n}/{d}" for _, n, d in table.meters] == [row["time_signature"]]
        assert abs(table.seconds() - row["duration"]) <= 0.52
        assert {CAPTION_WORDS[program] for program in table.programs()} == set(row["instrument_summary"])


def test_captions_name_the_style_and_every_instrument_and_say_whether_there_are_drums(band: tuple[str, Path]) -> None:
    profile, out = band
    nouns = {style.name: style.nouns for style in STYLES}
    silent = 0
    for row in rows_of(out):
        caption = row["caption"].lower()
        assert any(noun in caption for noun in nouns[row["genre"][0]]), caption
        denied = any(phrase in caption for phrase in NO_DRUMS)
        if row["drums"]:
            assert re.search(r"\bdrums\b", caption), caption
            assert not denied, caption
        else:
            assert denied or "drum" not in caption, caption
            silent += not denied
        for word in row["instrument_summary"]:
            assert word in caption, caption
    assert silent == 0 if profile == "small" else 0 < silent < PIECES / 6


def test_every_number_key_and_meter_in_a_caption_is_true(band: tuple[str, Path]) -> None:
    _, out = band
    stated = collections.Counter[str]()
    for row in rows_of(out):
        caption = row["caption"]
        for meter in re.findall(r"\d+/\d+", caption):
            assert meter == row["time_signature"]
            stated["meter"] += 1
        for bpm in re.findall(r"(\d+) (?:BPM|beats)", caption):
            assert int(bpm) == row["tempo"]
            stated["tempo"] += 1
        for seconds in re.findall(r"(\d+) seconds", caption):
            assert int(seconds) == row["duration"]
            stated["seconds"] += 1
        for key in re.findall(r"[A-G][b#]? (?:major|minor)", caption):
            assert key == row["key"]
            stated["key"] += 1
        for listed in re.findall(r"(?:chords|progression is|begins with) ((?:[A-G][\w#]*(?:, | and )?)+)\.", caption):
            chords = re.split(r", | and ", listed)
            assert chords == [name for name, _ in itertools.groupby(row["chord_summary"])]
            stated["chords"] += 1
    expected = {"meter", "tempo", "key"} | ({"seconds", "chords"} if band[0] == "full" else set())
    assert all(stated[fact] > 10 for fact in expected), stated


def test_the_band_is_as_varied_as_it_says(tmp_path: Path) -> None:
    pieces = [draw(random.Random(f"varied {index}"), "full") for index in range(400)]
    assert {piece.style.name for piece in pieces} == {style.name for style in STYLES}
    assert len(STYLES) >= 8
    assert {piece.style.meter for piece in pieces} == {(4, 4), (3, 4), (6, 8)}
    assert {piece.key.tonic for piece in pieces} == set(range(12))
    assert {piece.key.mode for piece in pieces} == {"major", "minor"}
    tempi = [piece.bpm for piece in pieces]
    assert 60 <= min(tempi) < 66
    assert 170 < max(tempi) <= 180
    assert all(20 <= piece.duration <= 40.01 for piece in pieces)
    with_drums = sum("drums" in piece.programs for piece in pieces)
    assert 160 < with_drums < 240
    # Drums are drawn apart from the style: every style is heard both ways.
    both = {(piece.style.name, "drums" in piece.programs) for piece in pieces}
    assert len(both) == 2 * len(STYLES)
    for role in ("melody", "chords", "bass"):
        assert 0 < sum(role not in piece.programs for piece in pieces) < 100
    assert all(len(piece.programs) >= 2 for piece in pieces)


def test_small_pieces_are_small_and_on_the_grid_of_ten_milliseconds() -> None:
    pieces = [draw(random.Random(f"small {index}"), "small") for index in range(300)]
    counts = sorted(len(piece.notes) for piece in pieces)
    assert 25 <= counts[150] <= 50
    assert counts[0] >= 8
    assert counts[-1] <= 120
    assert all(5 <= piece.duration <= 12 for piece in pieces)
    assert {program for piece in pieces for program in piece.programs.values()} == {0, 33, 73, 128}
    for piece in pieces:
        for note in piece.notes:
            for units in (note.start, note.end):
                ticks = piece.seconds(units) * 100
                assert abs(ticks - round(ticks)) < 1e-6, (piece.style.name, piece.bpm, units)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, pieces, seed in (("once", 8, 5), ("again", 8, 5), ("more", 11, 5), ("other", 8, 6)):
        write_band(tmp_path / name, pieces, seed, documents=4)
    once, again, more, other = (
        {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("once", "again", "more", "other")
    )
    assert once == again
    assert len(once) == 8 + 4 + 1
    assert all(more[name] == data for name, data in once.items() if name != "captions.jsonl")
    assert more["captions.jsonl"].startswith(once["captions.jsonl"])
    assert not {data for name, data in once.items() if name.endswith(".mid")} & set(other.values())


def test_files_are_plain_midi_that_mido_reads_and_that_ends_every_note(band: tuple[str, Path]) -> None:
    _, out = band
    clocks = set()
    for row in rows_of(out):
        file = mido.MidiFile(out / row["location"])
        clocks.add(file.ticks_per_beat)
        assert len(file.tracks) == 1 + len(row["roles"])
        assert {message.type for message in file.tracks[0]} >= {"set_tempo", "time_signature", "key_signature"}
        for track in file.tracks[1:]:
            assert track[0].type == "track_name"
            open_notes = set()
            for message in track:
                if message.type == "note_on":
                    assert message.note not in open_notes, "a note starts where it is sounding already"
                    assert message.velocity > 0
                    open_notes.add(message.note)
                elif message.type == "note_off":
                    open_notes.remove(message.note)
            assert not open_notes
    assert len(clocks) >= 4


def test_pieces_begin_on_time_and_end_on_the_tonic() -> None:
    for index in range(150):
        piece = draw(random.Random(f"ending {index}"), "full")
        assert min(note.start for note in piece.notes) < piece.bar_units
        last_bar = (max(note.end for note in piece.notes) - 1) // piece.bar_units * piece.bar_units
        last = [note for note in piece.notes if note.start >= last_bar]
        tonic = chord("I" if piece.key.mode == "major" else "i", piece.key)
        assert {note.pitch % 12 for note in last if note.role in ("melody", "bass")} <= {tonic.root}
        assert {note.pitch % 12 for note in last if note.role == "chords"} <= set(tonic.tones)
        assert piece.chords[-1] == (last_bar, tonic.name)
        assert {note.role for note in last} == set(piece.programs)


def test_the_chords_that_are_named_are_the_chords_that_sound() -> None:
    letters = dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))
    steps = {"": (0, 4, 7), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m": (0, 3, 7), "m7": (0, 3, 7, 10)}
    steps["m7b5"] = (0, 3, 6, 10)
    named = 0
    for index in range(60):
        piece = draw(random.Random(f"harmony {index}"), "full")
        ends = [start for start, _ in piece.chords[1:]] + [10**9]
        for (start, name), end in zip(piece.chords, ends, strict=True):
            match = re.fullmatch(r"([A-G])([b#]*)(7|maj7|m7|m7b5|m|)", name)
            assert match, name
            root = letters[match[1]] + match[2].count("#") - match[2].count("b")
            sounding = {n.pitch % 12 for n in piece.notes if n.role == "chords" and start <= n.start < end}
            assert sounding <= {(root + step) % 12 for step in steps[match[3]]}, (name, sounding)
            named += bool(sounding)
    assert named > 300


def test_voices_move_little() -> None:
    key = Key(0, "major")
    position = voicing(chord("I", key), (), voices=3, low=50, high=67)
    for numeral in ("vi", "IV", "V", "I"):
        following = voicing(chord(numeral, key), position, voices=3, low=50, high=67)
        assert max(abs(new - old) for new, old in zip(following, position, strict=True)) <= 3
        position = following


@pytest.mark.parametrize(
    ("numeral", "key", "name", "tones"),
    [
        ("V7", Key(2, "minor"), "A7", (9, 1, 4, 7)),
        ("bVII", Key(7, "major"), "F", (5, 9, 0)),
        ("iim7b5", Key(9, "minor"), "Bm7b5", (11, 2, 5, 9)),
        ("VI", Key(4, "minor"), "C", (0, 4, 7)),
        ("vi7", Key(3, "major"), "Cm7", (0, 3, 7, 10)),
    ],
)
def test_numerals(numeral: str, key: Key, name: str, tones: tuple[int, ...]) -> None:
    built = chord(numeral, key)
    assert (built.name, built.tones) == (name, tones)


def test_unknown_numeral_is_refused() -> None:
    with pytest.raises(ValueError, match="VX"):
        chord("VX", Key(0, "major"))


def test_tables_fit_their_meters() -> None:
    for style in STYLES:
        for groove in (*style.grooves, style.small_groove):
            rows = (*groove.drums.values(), groove.bass, groove.chords, *groove.melody)
            assert {len(row) for row in rows} == {bar_steps(style)}, style.name
            assert set(groove.drums) <= set(DRUM_KEYS)
        for mode in style.modes:
            assert set(style.form) <= set(style.progressions[mode])
    for width, fills in FILLS.items():
        assert all(len(row) <= width for fill in fills for row in fill.values())


def test_swing_is_heard_as_two_thirds_of_the_beat() -> None:
    swung = [draw(random.Random(f"swing {index}"), "small") for index in range(150)]
    blues = next(piece for piece in swung if piece.style.name == "blues" and "drums" in piece.programs)
    table = read_midi(midi_bytes(blues, 96))
    ride = table.onsets[table.notes == 128 * 128 + DRUM_KEYS["ride"]]
    beat = 6000 // blues.bpm
    assert set((ride % beat).tolist()) == {0, 2 * beat // 3}


def test_clock_that_cannot_hold_the_grid_is_refused() -> None:
    piece = draw(random.Random(0), "small")
    with pytest.raises(ValueError, match="100 ticks"):
        midi_bytes(piece, 100)


def test_band_agrees_with_what_is_read_off_its_files(band: tuple[str, Path]) -> None:
    _, out = band
    for row in rows_of(out):
        description = describe(table_of(out, row))
        assert set(description.instrument_words) == set(row["instrument_summary"])
        shares = dict(description.instruments)
        order = [shares[program] for program in row["instrument_numbers_sorted"] if program != 128]
        # Rounding to 10 ms may turn two instruments round that sound equally long.
        assert all(more > less - 0.005 for more, less in itertools.pairwise(order))
        assert description.drums == row["drums"]
        assert description.bpm is not None
        assert round(description.bpm) == row["tempo"]
        assert description.meter is not None
        assert "{}/{}".format(*description.meter) == row["time_signature"]


ABC_NOTE = re.compile(r"(\^\^|\^|__|_|=)?([A-Ga-gz])([,']*)(\d*)(/2)?")


def test_tunes_are_abc_that_fills_its_bars_and_gives_the_melody_back() -> None:
    signatures = "FCGDAEB"
    fifths = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F#": 6, "C#": 7, "F": -1, "Bb": -2, "Eb": -3, "Ab": -4}
    fifths |= {"Db": -5, "G#": 8}
    checked = 0
    for index in range(120):
        piece = draw(random.Random(f"abc {index}"), "full")
        if "melody" not in piece.programs:
            continue
        lines = abc(piece, 7, "A tune").splitlines()
        headers = dict(line.split(":", 1) for line in lines if re.match(r"[XTRMLQK]:", line))
        assert headers["M"] == "{}/{}".format(*piece.style.meter)
        assert headers["Q"] == f"1/4={piece.bpm}"
        assert headers["X"] == "7"
        tonic, minor = (headers["K"].removesuffix("m"), headers["K"].endswith("m"))
        count = fifths[tonic] - 3 * minor
        signature = dict.fromkeys(signatures[:count], 1) if count > 0 else {}
        signature |= dict.fromkeys(signatures[count:], -1) if count < 0 else {}
        body = " ".join(line for line in lines if not re.match(r"[A-Z]:", line))
        bars = [bar for bar in re.sub(r'"[^"]*"', "", body).replace("|]", "|").split("|") if bar.strip()]
        played = [bar for bar in piece.melody if bar]
        kept = [*played[:-1][:8], played[-1]]
        assert len(bars) == len(kept)
        for text, expected in zip(bars, kept, strict=True):
            at, found, force = 0, [], dict[str, int]()
            for sign, letter, octave, number, half in ABC_NOTE.findall(text):
                length = (int(number) if number else 1) * (1 if half else 2)
                if letter != "z":
                    place = letter + octave
                    if sign:
                        force[place] = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}[sign]
                    shift = force.get(place, signature.get(letter.upper(), 0))
                    base = 60 + dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))[letter.upper()]
                    base += 12 * (letter.islower() + octave.count("'") - octave.count(","))
                    found.append((at, length, base + shift))
                at += length
            assert at == bar_steps(piece.style), (text, expected)
            assert tuple(found) == expected, (headers["K"], text)
        checked += 1
    assert checked > 60
    assert UNITS_PER_STEP * 4 == 24


def test_an_accidental_holds_for_its_bar_and_is_undone() -> None:
    pieces = (draw(random.Random(f"accidental {index}"), "small") for index in range(500))
    piece = next(piece for piece in pieces if piece.key == Key(7, "major") and piece.style.meter == (4, 4))
    f_sharp, f_natural = 78, 77
    melody = tuple((4 * beat, 4, pitch) for beat, pitch in enumerate((f_natural, f_natural, f_sharp, f_sharp)))
    ending = ((0, 16, f_sharp),)
    tune = abc(dataclasses.replace(piece, melody=(melody, ending), chords=()), 1, "A tune")
    assert tune.splitlines()[-1] == "=f2 f2 ^f2 f2| f8|]"


@pytest.mark.parametrize(
    ("key", "numeral", "blue", "names"),
    [
        (Key(9, "minor"), "V7", False, "A B C D E F G#"),
        (Key(9, "minor"), "iv", False, "A B C D E F G"),
        (Key(0, "major"), "bVII", False, "C D E F G A A#"),
        (Key(0, "major"), "IV7", True, "C D D# F G A A#"),
        (Key(0, "major"), "V7", True, "C D E F G A B"),
    ],
)
def test_scales_bend_to_the_chord(key: Key, numeral: str, blue: bool, names: str) -> None:
    sharps = "C C# D D# E F F# G G# A A# B".split()  # noqa: SIM905
    assert {sharps[pitch] for pitch in scale_under(key, chord(numeral, key), blue=blue)} == set(names.split())


def test_text_covers_the_words_of_the_captions_without_repeating_them(band: tuple[str, Path]) -> None:
    profile, out = band
    documents = [document(random.Random(f"{profile} {index}"), profile) for index in range(150)]
    known = set(re.findall(r"[A-Za-z]+", " ".join(documents)))
    captions = [row["caption"] for row in rows_of(out)]
    words = set(re.findall(r"[A-Za-z]+", " ".join(captions)))
    assert len(words - known) <= 0.02 * len(words), words - known
    written = "".join(path.read_text(encoding="utf-8") for path in sorted((out / "text").glob("*.txt")))
    assert written.count("X:") == 12
    if profile == "full":
        assert not [caption for caption in captions if caption in written]


def test_theory_is_right() -> None:
    text = " ".join(document(random.Random(f"theory {index}"), "small") for index in range(500))
    assert "The key of D major has 2 sharps: F sharp and C sharp." in text
    assert "The relative minor of G major is E minor." in text
    flats = set(re.findall(r"The key of Bb minor has (\d+) flats", text))
    assert flats == {"5"}
    wrong = re.findall(r"A perfect fifth above ([A-G](?: sharp| flat)?) is ([A-G](?: sharp| flat)?)\.", text)
    fifths = dict(itertools.pairwise(["F", "C", "G", "D", "A", "E", "B"]))
    assert wrong
    assert all(fifths.get(low[0], "F")[0] == high[0] for low, high in wrong)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    out = tmp_path / "band"
    report = write_band(out, 3, seed=1, documents=2)
    assert (report.pieces, report.documents) == (3, 2)
    assert report.notes == sum(len(table_of(out, row)) for row in rows_of(out))
    assert [path.name for path in tmp_path.iterdir()] == ["band"]
    with pytest.raises(UserError, match="is there already"):
        write_band(out, 3, seed=1)
    with pytest.raises(UserError, match="at least one"):
        write_band(tmp_path / "none", 0, seed=1)
    assert not (tmp_path / "none").exists()


def test_velocities_have_accents() -> None:
    file = mido.MidiFile(file=io.BytesIO(midi_bytes(draw(random.Random(4), "full"), 480)))
    velocities = [message.velocity for track in file.tracks for message in track if message.type == "note_on"]
    assert np.std(velocities) > 5
    assert 1 <= min(velocities) <= max(velocities) <= 127
