"""Facts read out of prompts."""

import json
import math
from pathlib import Path
from typing import Literal

import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.data.tonality import Key
from midillm_jax.evaluation.asked import Asked, from_columns
from midillm_jax.evaluation.prompt_facts import asked_key, asked_meter, asked_seconds, asked_tempo, read_prompt


@pytest.mark.parametrize(
    ("prompt", "tempo"),
    [
        ("A march at 120 BPM.", (120, 120)),
        ("going at 122 bpm", (122, 122)),
        ("at the pace of 114 beats per minute", (114, 114)),
        ("with a tempo of 96", (96, 96)),
        ("a lively tempo set at 150 beats per minute", (150, 150)),
        ("a slow waltz at 84.5 BPM", (84.5, 84.5)),
        ("This fast piece is in a Prestissimo tempo.", (209, math.inf)),
        ("the tempo is set to Moderato", (91, 115)),
        ("at a brisk Vivace pace", (141, 168)),
        ("The time signature is 4/4 and the tempo is fast.", (116, 168)),
        ("at a very fast pace", (161, math.inf)),
        ("at a moderate pace", (81, 120)),
        ("a very slow piece for strings", (1, 60)),
        ("an up-tempo polka", (116, 168)),
        ("a piece of moderate length in 4/4", None),
        ("A calm piece for 12 violins, 3 minutes long.", None),
    ],
)
def test_tempo(prompt: str, tempo: tuple[float, float] | None) -> None:
    assert asked_tempo(prompt) == tempo


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("in the key of A major", Key(9, "major")),
        ("It is in Bb minor.", Key(10, "minor")),
        ("Set in C# minor, it is slow.", Key(1, "minor")),
        ("a waltz in E-flat major", Key(3, "major")),
        ("a waltz in F sharp minor", Key(6, "minor")),
        ("in the key of g minor", Key(7, "minor")),
        ("in d minor", Key(2, "minor")),
        ("The key is Gm.", Key(7, "minor")),
        ("in the key of Ab", Key(8, "major")),
        ("the chords A, E7, A7 and D", None),
        ("A minor key gives it a dark mood.", None),
        ("in a minor key", None),
        ("a D major seventh chord", None),
    ],
)
def test_key(prompt: str, key: Key | None) -> None:
    assert asked_key(prompt) == key


@pytest.mark.parametrize(
    ("prompt", "meter"),
    [
        ("in 3/4 time", (3, 4)),
        ("Set in a lively 12/8 time signature", (12, 8)),
        ("a march in two-four time", (2, 4)),
        ("A waltz for piano", (3, 4)),
        ("A waltz in 6/8", (6, 8)),
        ("common time", (4, 4)),
        ("written on 24/7/2020", None),
        ("a steady beat", None),
    ],
)
def test_meter(prompt: str, meter: tuple[int, int] | None) -> None:
    assert asked_meter(prompt) == meter


@pytest.mark.parametrize(
    ("prompt", "seconds"),
    [
        ("It lasts about 40 seconds.", (40, 40)),
        ("an 18-second piece", (18, 18)),
        ("about 3 minutes long", (150, 210)),
        ("a two-minute song", (90, 150)),
        ("1 minute and 20 seconds", (80, 80)),
        ("half a minute of calm", (30, 30)),
        ("A very short fragment of pop music", (0, 30)),
        ("A very fast and short fragment of electronic music", (0, 45)),
        ("This song is quite short.", (0, 120)),
        ("A long electronic melodic piece", (300, math.inf)),
        ("this lengthy composition", (300, math.inf)),
        ("A piece with long notes", None),
        ("8 measures", None),
    ],
)
def test_length(prompt: str, seconds: tuple[float, float] | None) -> None:
    assert asked_seconds(prompt) == seconds


def test_a_whole_prompt() -> None:
    prompt = "A bossa nova for flute and nylon guitar without drums, in Eb major and 2/4 at 130 BPM, 30 seconds long."
    flute, guitar = frozenset({73}), frozenset({24})
    assert read_prompt(prompt) == Asked((flute, guitar), False, (130, 130), Key(3, "major"), (2, 4), (30, 30))


def test_nothing_is_read_where_nothing_is_said() -> None:
    assert read_prompt("Something beautiful, please.") == Asked()


def test_titles_say_nothing_about_the_music() -> None:
    prompt = 'Solo cello. The title is Waltz in D minor for piano. Like "Slow Drums".'
    assert read_prompt(prompt) == Asked(instruments=(frozenset({42}),))


@pytest.mark.parametrize("profile", ["small", "full"])
def test_what_is_read_out_of_the_bands_captions_is_true(profile: Literal["small", "full"], tmp_path: Path) -> None:
    write_band(tmp_path / "band", 60, seed=5, profile=profile, documents=0)
    for line in (tmp_path / "band" / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        read, true = read_prompt(row["caption"]), from_columns(row)
        assert read.key in (None, true.key), row["caption"]
        assert read.meter in (None, true.meter), row["caption"]
        assert read.drums in (None, true.drums), row["caption"]
        assert read.tempo is None or read.tempo[0] - 1 <= row["tempo"] <= read.tempo[1], row["caption"]
        # Every instrument is named, and the programs that pass for it hold those that play.
        assert read.instruments is not None
        assert true.instruments is not None
        assert len(read.instruments) == len(true.instruments), row["caption"]
        assert all(any(one & other for other in read.instruments) for one in true.instruments), row["caption"]
