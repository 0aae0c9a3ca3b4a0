"""Captions read off the notes: true of the file, in varied wording, nothing invented."""

import collections
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax.data.captioning import caption_folder
from midillm_jax.data.captions import Catalogue, caption, columns, describe
from midillm_jax.errors import UserError
from midillm_jax.music.midi import DEFAULT_TEMPO, NoteTable, write_midi

PIANO, BASS, FLUTE, DRUMS = 0, 33, 73, 128


def table(
    notes: list[tuple[int, int, int, int]],
    tempos: tuple[tuple[int, int], ...] = ((0, DEFAULT_TEMPO),),
    meters: tuple[tuple[int, int, int], ...] = (),
) -> NoteTable:
    """A table of (onset, duration, program, pitch), in ticks of 10 ms."""
    onsets, durations, programs, pitches = np.array(sorted(notes)).T
    return NoteTable(
        onsets.astype(np.int32),
        durations.astype(np.int32),
        (128 * programs + pitches).astype(np.int32),
        np.full(len(notes), 80, np.uint8),
        np.array(tempos, np.int64),
        np.array(meters, np.int32).reshape(-1, 3),
    )


def band(drums: bool) -> NoteTable:
    """40 seconds of piano (20 s sounding), bass (12 s) and flute (8 s) at 100 BPM in 3/4."""
    notes = [(at, 50, PIANO, 60) for at in range(0, 4000, 100)]
    notes += [(at, 30, BASS, 40) for at in range(0, 4000, 100)]
    notes += [(at, 20, FLUTE, 80) for at in range(0, 4000, 100)]
    notes += [(at, 10, DRUMS, 36) for at in range(0, 4000, 50)] if drums else []
    return table(notes, tempos=((0, 600_000),), meters=((0, 3, 4),))


def captions_of(piece: NoteTable, catalogue: Catalogue | None = None, count: int = 200) -> list[str]:
    description = describe(piece)
    return [caption(description, random.Random(seed), catalogue) for seed in range(count)]


def test_instruments_stand_by_their_share_of_sounding_time() -> None:
    description = describe(band(drums=True))
    assert [program for program, _ in description.instruments] == [PIANO, BASS, FLUTE]
    assert [share for _, share in description.instruments] == pytest.approx([0.5, 0.3, 0.2])
    assert description.instrument_words == ("piano", "electric bass", "flute", "drums")
    assert description.drums
    assert not describe(band(drums=False)).drums


def test_time_is_read_off_the_file() -> None:
    description = describe(band(drums=False))
    assert (description.bpm, description.steady, description.meter) == (100, True, (3, 4))
    assert description.seconds == pytest.approx(39.5)


def test_what_holds_longest_counts() -> None:
    notes = [(at, 100, PIANO, 60) for at in range(0, 10_000, 100)]
    tempos = ((0, 400_000), (2000, 800_000), (8000, 400_000))
    description = describe(table(notes, tempos, meters=((0, 4, 4), (1000, 6, 8))))
    assert description.bpm == pytest.approx(75)
    assert not description.steady
    assert description.meter == (6, 8)


def test_a_tempo_that_nobody_set_is_not_told() -> None:
    notes = [(0, 100, PIANO, 60)]
    assert describe(table(notes)).bpm is None
    assert describe(table(notes, meters=((0, 4, 4),))).bpm == 120
    assert describe(table(notes, tempos=((0, 600_000),))).bpm == 100
    assert "tempo" not in columns(describe(table(notes)))
    assert not [text for text in captions_of(table(notes)) if re.search("BPM|tempo|time", text)]


def test_a_tempo_of_no_length_is_not_a_tempo() -> None:
    assert describe(table([(0, 100, PIANO, 60)], tempos=((0, 0),))).bpm is None


def test_captions_say_what_is_there_and_nothing_else() -> None:
    facts = collections.Counter[str]()
    for text in captions_of(band(drums=True)):
        assert "piano, electric bass, flute and drums" in text.lower()
        assert "no drums" not in text
        assert "without" not in text
        assert set(re.findall(r"\d+/\d+", text)) <= {"3/4"}
        assert set(re.findall(r"(\d+) BPM", text)) <= {"100"}
        assert set(re.findall(r"(\d+) seconds", text)) <= {"40"}
        assert not re.search(r"major|minor|happy|melodic|fast|slow|Allegro|Adagio", text)
        for fact in ("3/4", "100 BPM", "Moderato", "moderate", "40 seconds", "short fragment"):
            facts[fact] += fact in text
    assert min(facts.values()) > 10
    assert len(facts) == 6


def test_most_captions_of_pieces_without_drums_say_so() -> None:
    texts = captions_of(band(drums=False))
    denials = [len(re.findall("no drums|without (?:any )?drums", text, re.IGNORECASE)) for text in texts]
    assert set(denials) == {0, 1}
    assert 150 < sum(denials) < 200
    assert denials == [text.count("drums") for text in texts]


def test_a_changing_tempo_is_given_without_a_number() -> None:
    tempos = ((0, 500_000), (1500, 1_000_000))
    texts = captions_of(table([(at, 100, PIANO, 60) for at in range(0, 4000, 100)], tempos))
    assert not any("BPM" in text for text in texts)
    told = {match for text in texts for match in re.findall(r"an? ([\w ]*) tempo that changes", text)}
    assert told == {"slow", "Adagio"}


def test_wording_varies_and_a_seed_holds() -> None:
    assert len(set(captions_of(band(drums=False)))) > 100
    assert captions_of(band(drums=False)) == captions_of(band(drums=False))


def test_grammar_of_one_and_of_many() -> None:
    solo = captions_of(table([(0, 100, PIANO, 60)]))
    assert any(text.startswith("Piano plays a ") for text in solo)
    assert not any("Piano play a" in text for text in solo)
    many = table([(0, 10 + program, program, 60) for program in (0, 24, 32, 40, 56, 65, 73)])
    assert all("other instruments" in text and "piano" not in text.lower() for text in captions_of(many))
    drums = captions_of(table([(0, 10, DRUMS, 36)]))
    assert all("drums" in text.lower() for text in drums)


def test_genre_comes_from_the_person_alone() -> None:
    catalogue = Catalogue(genre="slow air", composer="A. Nother", title="The Hill")
    texts = captions_of(band(drums=False), catalogue)
    assert all(text.startswith("Slow air") for text in texts)
    assert 0 < sum("The composer is A. Nother." in text for text in texts) < 200
    assert 0 < sum("The title is The Hill." in text for text in texts) < 200


def test_columns_are_those_of_midicaps() -> None:
    assert columns(describe(band(drums=True))) == {
        "duration": 40,
        "duration_word": "short fragment",
        "instrument_summary": ["piano", "electric bass", "flute", "drums"],
        "instrument_numbers_sorted": [0, 33, 73, 128],
        "drums": True,
        "tempo": 100,
        "tempo_word": "Moderato",
        "time_signature": "3/4",
    }


MANIFEST = (
    "path\ttitle\tcomposer\tgroup\tnote\n"
    "a/one.mid\t3 The Hill\tNother, Ann\tset one\tvoice and piano song (MusicXML -> MIDI)\n"
    "two.MID\ttwo_cptd\ttrad. Irish\t\tjig; key=C:maj\n"
    "gone.mid\t\t\t\t\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    midi = tmp_path / "midi"
    (midi / "a").mkdir(parents=True)
    (midi / "a" / "one.mid").write_bytes(write_midi(band(drums=True)))
    (midi / "two.MID").write_bytes(write_midi(band(drums=False)))
    (midi / "bad.mid").write_bytes(b"not a midi file")
    (midi / "left" / "deep").mkdir(parents=True)
    (midi / "left" / "deep" / "three.mid").write_bytes(write_midi(band(drums=True)))
    return midi


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["location"]: row for row in rows}


def test_a_folder_becomes_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder.parent / "MANIFEST.tsv"
    manifest.write_text(MANIFEST, encoding="utf-8")
    out = folder.parent / "out" / "captions.jsonl"
    report = caption_folder(folder, out, manifest=manifest, exclude=("left",), seed=1)
    assert (report.written, report.without_row, report.without_file) == (2, 0, 1)
    assert [name for name, _ in report.rejected] == ["bad.mid"]
    assert "MThd" in capsys.readouterr().out
    rows = rows_of(out)
    assert list(rows) == ["../midi/a/one.mid", "../midi/two.MID"]
    assert all((out.parent / location).is_file() for location in rows)
    one, two = rows.values()
    assert one["caption"].startswith("Voice and piano song")
    assert "MusicXML" not in one["caption"]
    assert (one["group"], one["genre"]) == ("set one", ["voice and piano song"])
    assert two["genre"] == ["jig"]
    assert "group" not in two
    assert [one["drums"], two["drums"]] == [True, False]
    assert [path.name for path in out.parent.iterdir()] == ["captions.jsonl"]


def test_catalogue_words_are_put_in_order(folder: Path) -> None:
    manifest = folder.parent / "MANIFEST.tsv"
    manifest.write_text(MANIFEST, encoding="utf-8")
    texts = []
    for seed in range(60):
        out = folder.parent / f"{seed}.jsonl"
        caption_folder(folder, out, manifest=manifest, exclude=("left",), seed=seed)
        texts += [row["caption"] for row in rows_of(out).values()]
    assert {match for text in texts for match in re.findall(r"The composer is ([^.]*)\.", text)} == {"Ann Nother"}
    assert {match for text in texts for match in re.findall(r"The title is ([^.]*)\.", text)} == {"The Hill"}


def test_wording_depends_on_seed_and_name_alone(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    caption_folder(folder, out, manifest=None, seed=1)
    every = rows_of(out)
    caption_folder(folder, out, manifest=None, exclude=("a",), seed=1)
    assert rows_of(out)["midi/two.MID"] == every["midi/two.MID"]
    captions = set()
    for seed in range(5):
        caption_folder(folder, out, manifest=None, seed=seed)
        captions.add(rows_of(out)["midi/two.MID"]["caption"])
    assert len(captions) > 2


def test_bad_input_is_told_and_leaves_nothing(folder: Path) -> None:
    out = folder.parent / "captions.jsonl"
    with pytest.raises(UserError, match="no such folder"):
        caption_folder(folder / "nowhere", out, manifest=None)
    with pytest.raises(UserError, match=r"none of 1 MIDI files could be read, the first, bad\.mid"):
        caption_folder(folder, out, manifest=None, exclude=("left", "a", "two.MID"))
    manifest = folder.parent / "MANIFEST.tsv"
    with pytest.raises(UserError, match=r"MANIFEST\.tsv"):
        caption_folder(folder, out, manifest=manifest)
    manifest.write_text("file,title\n", encoding="utf-8")
    with pytest.raises(UserError, match='no column "path"'):
        caption_folder(folder, out, manifest=manifest)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["MANIFEST.tsv", "midi"]


def test_a_file_name_that_is_not_utf8_is_captioned_and_found_again(tmp_path: Path) -> None:
    name = b"caf\xe9.mid".decode("utf-8", "surrogateescape")
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / name).write_bytes(write_midi(band(drums=True)))
    out = tmp_path / "captions.jsonl"
    assert caption_folder(tmp_path / "songs", out, manifest=None, seed=1).written == 1
    location = json.loads(out.read_text())["location"]
    assert (tmp_path / location).is_file()
