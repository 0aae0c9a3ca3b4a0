"""What is read off a table of notes: true of files whose every parameter is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.band.compose import Profile
from midillm_jax.data.captions import columns
from midillm_jax.data.demo import write_band
from midillm_jax.data.describe import Description, describe
from midillm_jax.data.harmony import Chord, Progression
from midillm_jax.data.tonality import Key
from midillm_jax.music.midi import DEFAULT_TEMPO, NoteTable, read_midi

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


def song(*, shift: int = 0) -> list[tuple[int, int, int, int]]:
    """C, Am, F, G four times and C: a bar of four at 120 BPM each, three voices over a bass."""
    chords = [(48, 52, 55), (45, 48, 52), (41, 45, 48), (43, 47, 50)] * 4 + [(48, 52, 55)]
    notes = [(200 * bar, 199, PIANO, 12 + shift + pitch) for bar, chord in enumerate(chords) for pitch in chord]
    notes += [(200 * bar + at, 99, BASS, chord[0] - 12 + shift) for bar, chord in enumerate(chords) for at in (0, 100)]
    return notes


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


def test_tempos_that_nobody_tells_apart_count_together() -> None:
    """98 to 102 BPM in turns is 100; one slow bar at the end does not change that."""
    notes = [(at, 60, PIANO, 60) for at in range(0, 6000, 60)]
    wavering = tuple((600 * at, (600_000, 588_000, 612_000)[at % 3]) for at in range(9))
    description = describe(table(notes, (*wavering, (5600, 1_200_000)), meters=((0, 4, 4),)))
    assert description.bpm == pytest.approx(100, rel=0.03)
    assert description.steady


def test_a_tempo_that_nobody_set_is_not_told() -> None:
    notes = [(0, 100, PIANO, 60)]
    assert describe(table(notes)).bpm is None
    assert describe(table(notes, meters=((0, 4, 4),))).bpm == 120
    assert describe(table(notes, tempos=((0, 600_000),))).bpm == 100
    assert "tempo" not in columns(describe(table(notes)))


def test_a_tempo_of_no_length_is_not_a_tempo() -> None:
    assert describe(table([(0, 100, PIANO, 60)], tempos=((0, 0),))).bpm is None


def test_tempos_come_back_as_they_were_meant() -> None:
    """115 BPM is written as 521,739 microseconds, which is 115.00004; its word is that of 115."""
    for bpm in (40, 60, 76, 90, 115, 140, 168, 208):
        description = describe(table([(0, 100, PIANO, 60)], tempos=((0, round(60e6 / bpm)),)))
        assert description.bpm == bpm


def test_bars_of_one_beat_are_no_meter() -> None:
    notes = [(at, 50, PIANO, 60) for at in range(0, 5000, 50)]
    assert describe(table(notes, meters=((0, 1, 4),))).meter is None
    assert describe(table(notes, meters=((0, 1, 8), (25, 3, 8)))).meter == (3, 8)


def test_a_performance_off_the_grid_has_no_tempo_meter_or_chords() -> None:
    rng = np.random.default_rng(0)
    at = np.cumsum(rng.integers(10, 90, 300))
    notes = [(int(onset), 80, PIANO, 48 + pitch) for onset in at for pitch in (0, 4, 7)]
    description = describe(table(notes, meters=((0, 4, 4),)))
    assert description.free
    assert (description.bpm, description.meter, description.harmony) == (None, None, None)
    assert not {"tempo", "time_signature", "all_chords"} & columns(description).keys()


def test_key_and_chords_are_read_off_the_notes() -> None:
    for shift in range(12):
        description = describe(table(song(shift=shift), meters=((0, 4, 4),)))
        assert description.key == Key(shift, "major")
        chords = [Chord((root + shift) % 12, quality) for root, quality in ((0, ""), (9, "m"), (5, ""), (7, ""))]
        assert description.progression == Progression(tuple(chords), 4)


def test_the_key_does_not_come_from_the_file_but_from_its_notes(tmp_path: Path) -> None:
    """The band's files hold a key signature; a lie in its place changes nothing."""
    write_band(tmp_path / "band", 1, seed=4, documents=0)
    data = next((tmp_path / "band" / "midi").iterdir()).read_bytes()
    at = data.index(b"\xff\x59\x02") + 3
    lied = data[:at] + bytes([(data[at] + 3) % 7, 1 - data[at + 1]]) + data[at + 2 :]
    assert describe(read_midi(lied)) == describe(read_midi(data))


def test_one_voice_has_no_chords() -> None:
    line = [(25 * at, 25, FLUTE, (60, 64, 67, 72)[at % 4]) for at in range(128)]
    description = describe(table(line, meters=((0, 4, 4),)))
    assert description.one_voice
    assert description.voices == pytest.approx(1)
    assert description.harmony is None
    drummed = describe(table([*line, (0, 10, DRUMS, 36)], meters=((0, 4, 4),)))
    assert not drummed.one_voice


def test_voices_and_pitch_are_means_over_time() -> None:
    """Two notes at a time for a second, then one for a second, an octave higher."""
    description = describe(table([(0, 100, PIANO, 60), (0, 100, PIANO, 72), (500, 100, PIANO, 72)]))
    assert description.voices == pytest.approx(1.5)
    assert description.pitch == pytest.approx(68)
    assert describe(table([(0, 10, DRUMS, 36)])).pitch is None


def test_drums_play_throughout_or_not() -> None:
    notes = [(at, 100, PIANO, 60) for at in range(0, 6000, 100)]
    whole = describe(table([*notes, *((at, 10, DRUMS, 36) for at in range(0, 6000, 50))]))
    half = describe(table([*notes, *((at, 10, DRUMS, 36) for at in range(0, 3000, 50))]))
    assert (whole.drums, whole.drums_throughout) == (True, True)
    assert (half.drums, half.drums_throughout) == (True, False)
    assert not describe(table(notes)).drums_throughout


def test_columns_are_those_of_midicaps() -> None:
    row = columns(describe(table(song(), meters=((0, 4, 4),))))
    assert row["all_chords"][:5] == ["C", "Am", "F", "G", "C"]
    assert row["all_chords_timestamps"][:5] == [0, 2, 4, 6, 8]
    del row["all_chords"], row["all_chords_timestamps"]
    assert row == {
        "key": "C major",
        "time_signature": "4/4",
        "tempo": 120,
        "tempo_word": "Allegro",
        "duration": 34,
        "duration_word": "short fragment",
        "chord_summary": ["C", "Am", "F", "G"],
        "chord_summary_occurence": 4,
        "instrument_summary": ["piano", "electric bass"],
        "instrument_numbers_sorted": [0, 33],
        "drums": False,
        "notes_per_second": 2.5,
        "texture": ["sparse"],
    }


@pytest.mark.parametrize("profile", ["full", "small"])
def test_the_band_is_described_as_it_was_composed(profile: Profile, tmp_path: Path) -> None:
    """The bounds of benchmarks/captions.py, on pieces that nothing was tuned on."""
    out = tmp_path / "band"
    write_band(out, 80, seed=77, profile=profile, documents=0)
    rows = [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [columns(described(out / row["location"])) for row in rows]
    pairs = list(zip(told, rows, strict=True))
    assert all(ours["tempo"] == true["tempo"] and ours["tempo_word"] == true["tempo_word"] for ours, true in pairs)
    assert all(set(ours["instrument_summary"]) == set(true["instrument_summary"]) for ours, true in pairs)
    assert all(ours["drums"] == true["drums"] for ours, true in pairs)
    assert np.mean([ours.get("time_signature") == true["time_signature"] for ours, true in pairs]) >= 0.95
    assert np.mean([ours.get("key") == true["key"] for ours, true in pairs]) >= 0.9
    named = [ours["key"] == true["key"] for ours, true in pairs if "key" in ours]
    assert np.mean(named) >= 0.95, "a key that is told should be right"
    chords = [chord_share(ours, true) for ours, true in pairs if "all_chords" in ours]
    assert len(chords) > 50
    assert np.mean(chords) >= 0.9


def described(path: Path) -> Description:
    return describe(read_midi(path.read_bytes(), compiled=True))


def chord_share(ours: dict[str, list], true: dict[str, list]) -> float:
    """Share of the written chords that are named at their middle."""
    ends = [*true["all_chords_timestamps"][1:], true["all_chords_timestamps"][-1] + 1.0]
    middles = (np.array(true["all_chords_timestamps"]) + ends) / 2
    places = np.searchsorted(ours["all_chords_timestamps"], middles, side="right") - 1
    return float(np.mean([ours["all_chords"][at] == name for at, name in zip(places, true["all_chords"], strict=True)]))
