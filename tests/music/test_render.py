"""Pictures whose pixels are the notes, and audio that is the piece."""

import shutil
import wave
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from midillm_jax.errors import UserError
from midillm_jax.music import render
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.render import audio, find_soundfont, how_to_install_audio, piano_roll
from midillm_jax.music.roll import Bars, program_colours, roll_layout

PIANO, BASS, DRUMS = 0, 33, 128


def table(notes: list[tuple[int, int, int, int]], velocity: int = 127) -> NoteTable:
    """A table of (onset, duration, program, pitch), in ticks of 10 ms."""
    onsets, durations, programs, pitches = np.array(sorted(notes) or np.zeros((0, 4)), np.int32).reshape(-1, 4).T
    notes_ = (128 * programs + pitches).astype(np.int32)
    return NoteTable(onsets, durations, notes_, np.full(len(onsets), velocity, np.uint8))


PIECE = table(
    [
        (0, 100, PIANO, 60),
        (100, 100, PIANO, 64),
        (300, 200, PIANO, 72),
        (0, 400, BASS, 36),
        (0, 10, DRUMS, 36),
        (200, 10, DRUMS, 38),
        (450, 50, DRUMS, 49),
    ]
)


def drawn(piece: NoteTable, path: Path, title: str | None = None) -> np.ndarray:
    with Image.open(piano_roll(piece, path, title)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_every_note_has_its_colour_where_it_sounds(tmp_path: Path) -> None:
    pixels = drawn(PIECE, tmp_path / "roll.png")
    layout = roll_layout(PIECE)
    colours = program_colours(program for program, _, _ in layout.legend)
    assert pixels.shape == (layout.height, layout.width, 3)
    for onset, duration, note in zip(PIECE.onsets, PIECE.durations, PIECE.notes, strict=True):
        program, pitch = divmod(int(note), 128)
        if program == DRUMS:
            x, y = layout.x(onset / 100) + 2, layout.drum_y(pitch) + 5
        else:
            x, y = layout.x((onset + duration / 2) / 100), layout.y(pitch) + layout.row // 2
        assert tuple(pixels[int(y), int(x)]) == colours[program], (program, pitch)


def test_nothing_is_drawn_where_nothing_sounds(tmp_path: Path) -> None:
    pixels = drawn(PIECE, tmp_path / "roll.png").astype(int)
    layout = roll_layout(PIECE)
    row = layout.y(60) + layout.row // 2
    silent = pixels[row, int(layout.x(1.02)) : layout.width - 30]
    assert silent.min() > 200
    assert np.ptp(silent, axis=1).max() < 12, "only greys"
    sounding = pixels[row, int(layout.x(0)) + 3 : int(layout.x(0.97))]
    assert np.ptp(sounding, axis=1).min() > 60
    # Pitch 60 begins at second 0, so nothing but paper is to the left of it but for the octave's name.
    assert pixels[row, 2:10].min() == 255


def test_time_runs_right_and_pitch_up() -> None:
    layout = roll_layout(PIECE)
    assert layout.x(0) < layout.x(1) < layout.x(layout.seconds) <= layout.width
    assert layout.seconds == pytest.approx(5.0)
    assert layout.y(72) < layout.y(60) < layout.y(36) < layout.roll_bottom <= layout.drum_top
    assert layout.drum_keys == (49, 38, 36)
    assert [program for program, _, _ in layout.legend] == [PIANO, BASS, DRUMS]


def test_octaves_are_ruled_below_their_c(tmp_path: Path) -> None:
    piece = table([(0, 10, PIANO, 36), (0, 10, PIANO, 72), (400, 10, DRUMS, 36)])
    pixels = drawn(piece, tmp_path / "roll.png").astype(int)
    layout, column = roll_layout(piece), int(roll_layout(piece).x(2.3))
    assert layout.y(layout.high) == layout.roll_top
    assert layout.y(layout.low) + layout.row == layout.roll_bottom
    ruled = {
        pitch
        for pitch in range(layout.low + 1, layout.high)
        if pixels[layout.y(pitch) + layout.row - 1 : layout.y(pitch) + layout.row + 1, column].min() < 225
    }
    assert ruled == {36, 48, 60, 72}


def test_softer_notes_are_paler(tmp_path: Path) -> None:
    loud, soft = table([(0, 100, PIANO, 60)], 127), table([(0, 100, PIANO, 60)], 30)
    layout = roll_layout(loud)
    at = layout.y(60) + layout.row // 2, int(layout.x(0.5))
    assert drawn(soft, tmp_path / "soft.png")[at].sum() > drawn(loud, tmp_path / "loud.png")[at].sum() + 30


def test_repeated_notes_are_told_apart(tmp_path: Path) -> None:
    twice = table([(0, 100, PIANO, 60), (100, 100, PIANO, 60)])
    pixels = drawn(twice, tmp_path / "roll.png").astype(int)
    layout = roll_layout(twice)
    row = pixels[layout.y(60) + layout.row // 2]
    middle = int(layout.x(1.0))
    seam, inside = row[middle - 2 : middle + 3], row[middle - 40]
    assert np.abs(seam - inside).sum(axis=1).max() > 60


def test_a_program_has_one_colour_and_programs_differ() -> None:
    assert program_colours([0])[0] == program_colours([33, 0])[0]
    assert program_colours([0, 1])[0] != program_colours([0, 1])[1]
    ten = program_colours(range(0, 80, 8))
    assert len(set(ten.values())) == 10
    assert len(program_colours([*range(40), DRUMS])) == 41


def test_title_and_long_legends_take_room(tmp_path: Path) -> None:
    plain, titled = roll_layout(PIECE), roll_layout(PIECE, "A waltz " * 60)
    assert titled.roll_top == plain.roll_top + 48, "two lines and no more"
    many = table([(0, 100, program, 60) for program in range(40)])
    layout = roll_layout(many)
    assert len({top for _, _, top in layout.legend}) > 2
    assert all(left < layout.width - 100 for _, left, _ in layout.legend)
    assert layout.legend[-1][2] < layout.roll_top
    pixels = drawn(many, tmp_path / "roll.png", "A waltz " * 60)
    assert pixels[20:60, :90].min() == 255, "words stay right of the margin"
    assert pixels[20:60, 95:].min() < 100
    assert pixels[:, -8:].min() == 255


@pytest.mark.parametrize(
    "piece",
    [
        table([]),
        table([(0, 0, PIANO, 0)]),
        table([(0, 999, PIANO, 127), (9999, 999, BASS, 0)]),
        table([(5, 1, DRUMS, key) for key in (0, 36, 127)]),
        table([(360_000, 100, PIANO, 60)]),
    ],
    ids=["empty", "one", "extremes", "drums alone", "an hour"],
)
def test_odd_pieces_are_drawn(piece: NoteTable, tmp_path: Path) -> None:
    pixels = drawn(piece, tmp_path / "roll.png", "Odd")
    assert 1200 <= pixels.shape[1] <= 2400
    assert 150 < pixels.shape[0] < 1200
    assert [path.name for path in tmp_path.iterdir()] == ["roll.png"]


@pytest.fixture
def midi_file(tmp_path: Path) -> Path:
    path = tmp_path / "piece.mid"
    path.write_bytes(write_midi(PIECE))
    return path


@pytest.fixture
def synthesizer() -> None:
    if shutil.which("fluidsynth") is None or find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")


@pytest.mark.usefixtures("synthesizer")
def test_audio_is_as_long_as_the_piece_and_not_silent(midi_file: Path) -> None:
    out = audio(midi_file, midi_file.with_name("piece.wav"))
    with wave.open(str(out)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 44_100, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32_768
    seconds = len(samples) / 44_100
    assert PIECE.seconds() - 0.1 < seconds < PIECE.seconds() + 4, "tail cut"
    level = np.sqrt(np.mean(samples**2))
    assert 0.02 < level < 0.3
    assert 0.1 < np.abs(samples).max() <= 0.9
    # The first second sounds, and so does the last note's.
    for start in (0, 3):
        assert np.abs(samples[start * 44_100 : (start + 1) * 44_100]).max() > 0.02
    assert sorted(path.name for path in out.parent.iterdir()) == ["piece.mid", "piece.wav"]


@pytest.mark.usefixtures("synthesizer")
@pytest.mark.parametrize("ending", [".flac", ".mp3", ".ogg"])
def test_compressed_audio(midi_file: Path, ending: str) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile, which encodes what fluidsynth plays, is missing")
    out = audio(midi_file, midi_file.with_name(f"piece{ending}"))
    samples, rate = soundfile.read(out)
    assert rate == 44_100
    assert PIECE.seconds() - 0.1 < len(samples) / rate < PIECE.seconds() + 4
    assert np.sqrt(np.mean(samples**2)) > 0.02
    assert out.stat().st_size < len(samples) * 4


@pytest.mark.usefixtures("synthesizer")
def test_silence_and_broken_files_are_told(midi_file: Path) -> None:
    silent = midi_file.with_name("silent.mid")
    silent.write_bytes(b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0")
    with pytest.raises(UserError, match=r"silent\.mid"):
        audio(silent, midi_file.with_name("silent.wav"))
    broken = midi_file.with_name("broken.mid")
    broken.write_bytes(b"no music")
    with pytest.raises(UserError, match=r"broken\.mid"):
        audio(broken, midi_file.with_name("broken.wav"))
    assert not list(midi_file.parent.glob("*.wav*"))


def test_a_synthesizer_that_hangs_is_stopped(midi_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = midi_file.with_name("fluidsynth")
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    soundfont = midi_file.with_name("font.sf2")
    soundfont.touch()
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.setenv("MIDILLM_SOUNDFONT", str(soundfont))
    monkeypatch.setattr(render, "_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"more than 0\.5 seconds"):
        audio(midi_file, midi_file.with_name("piece.wav"))


def test_soundfont_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfont = tmp_path / "my.sf2"
    monkeypatch.setenv("MIDILLM_SOUNDFONT", str(soundfont))
    with pytest.raises(UserError, match=r"my\.sf2, which is not a file"):
        find_soundfont()
    soundfont.touch()
    assert find_soundfont() == soundfont


def test_soundfonts_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIDILLM_SOUNDFONT", raising=False)
    folders = [tmp_path / "none", tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(render, "_SOUNDFONT_FOLDERS", tuple(map(str, folders)))
    assert find_soundfont() is None
    for folder, name in ((folders[1], "Drums.sf2"), (folders[1], "FluidR3_GM.sf2"), (folders[2], "A.sf2")):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    assert find_soundfont() == folders[1] / "FluidR3_GM.sf2"


def test_what_is_missing_is_named_with_how_to_get_it(midi_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(midi_file.parent))
    with pytest.raises(UserError, match="FluidSynth") as caught:
        audio(midi_file, midi_file.with_name("piece.wav"))
    assert how_to_install_audio() in str(caught.value)
    assert "\n" not in how_to_install_audio()
    with pytest.raises(UserError, match=r"'\.aac'"):
        audio(midi_file, midi_file.with_name("piece.aac"))
    monkeypatch.setattr(render.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install soundfile"):
        audio(midi_file, midi_file.with_name("piece.mp3"))


_SVG = "{http://www.w3.org/2000/svg}"


def shapes(piece: NoteTable, path: Path, title: str | None = None, bars: Bars = ()) -> ElementTree.Element:
    return ElementTree.fromstring(piano_roll(piece, path, title, bars).read_text(encoding="utf-8"))


def test_an_svg_has_every_note_where_it_sounds_and_parses_whatever_the_title(tmp_path: Path) -> None:
    root = shapes(PIECE, tmp_path / "roll.svg", 'Tom & <Jerry> \x07\udcff "live"')
    layout = roll_layout(PIECE, "a title")
    colours = program_colours(program for program, _, _ in layout.legend)
    assert (root.get("width"), root.get("height")) == (str(layout.width), str(layout.height))
    pills = [each for each in root.iter(f"{_SVG}rect") if each.get("stroke")]
    assert len(pills) == len(PIECE) + len(layout.legend)
    for onset, note in zip(PIECE.onsets, PIECE.notes, strict=True):
        program, pitch = divmod(int(note), 128)
        top = layout.drum_y(pitch) + 1.5 if program == DRUMS else layout.y(pitch)
        there = [
            each
            for each in pills
            if abs(float(each.get("x", "")) - layout.x(onset / 100)) < 0.3 and abs(float(each.get("y", "")) - top) < 0.3
        ]
        assert [each.get("fill") for each in there] == ["#{:02x}{:02x}{:02x}".format(*colours[program])]
    words = [each.text for each in root.iter(f"{_SVG}text")]
    assert 'Tom & <Jerry>  "live"' in words
    assert {"Acoustic Grand Piano", "Drums", "C4", "5.0 s  \u00b7  7 notes"} <= set(words)
    again = piano_roll(PIECE, tmp_path / "again.svg", 'Tom & <Jerry> \x07\udcff "live"')
    assert again.read_bytes() == (tmp_path / "roll.svg").read_bytes()


def test_bars_are_ruled_and_numbered(tmp_path: Path) -> None:
    bars = [(1, 0.0), (2, 2.0), (3, 4.0), (4, 6.0)]  # the last ones are beyond the notes, which end at 5 s
    root = shapes(PIECE, tmp_path / "roll.svg", bars=bars)
    layout = roll_layout(PIECE, bars=bars)
    assert layout.roll_top > roll_layout(PIECE).roll_top
    above = [each for each in root.iter(f"{_SVG}text") if float(each.get("y", "")) > layout.roll_top - 14]
    numbers = {each.text: float(each.get("x", "")) for each in above if each.text in ("1", "2", "3", "4")}
    at_the_top = {name: x for name, x in numbers.items() if name != "4"}
    assert at_the_top == {str(number): pytest.approx(layout.x(at), abs=0.01) for number, at in bars[:3]}
    with Image.open(piano_roll(PIECE, tmp_path / "roll.png", bars=bars)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    row = layout.y(66) + layout.row // 2  # a black key's, where nothing sounds
    for second, ruled in ((2.0, True), (3.0, False), (4.0, True)):
        assert (pixels[row, int(layout.x(second))].sum() < pixels[row, int(layout.x(second)) - 5].sum()) == ruled


def test_many_bars_leave_the_notes_to_be_seen(tmp_path: Path) -> None:
    long = table([(100 * second, 90, PIANO, 60) for second in range(400)])
    bars = [(number + 1, number * 0.25) for number in range(1600)]
    root = shapes(long, tmp_path / "roll.svg", bars=bars)
    numbers = [int(each.text) for each in root.iter(f"{_SVG}text") if (each.text or "").isdigit()]
    assert 20 < len([number for number in numbers if number % 16 == 1]) < 120
    still = [(1, 0.0), (2, 0.0), (3, 0.0)]  # a tempo of 0
    shapes(long, tmp_path / "still.svg", bars=still)


def test_a_picture_of_another_kind_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        piano_roll(PIECE, tmp_path / "roll.gif")
