"""The model in the box: small enough to travel, there where none is named, and it listens."""

import subprocess
import sys
from pathlib import Path

import mido
import pytest

from midillm_jax.inference import compose, request
from midillm_jax.model import hf, llama
from midillm_jax.music.vocab import DRUM_PROGRAM

FOLDER = compose.bundled_model()


def test_it_is_small_enough_to_travel_with_the_package() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert max(sizes.values()) <= 15 << 20
    assert sum(sizes.values()) <= 32_000_000


def test_its_card_says_how_large_it_is() -> None:
    definition, _ = hf.load_music_model(FOLDER)
    assert f"{llama.parameter_count(definition.config):,} parameters" in (FOLDER / "README.md").read_text()


def test_without_a_model_generate_takes_it_offline(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "midillm_jax.generate", "--prompt", "A slow song with piano.", "--max-notes", "24"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(FOLDER.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "music").glob("*.mid")
    assert path.name.startswith("a-slow-song-with-piano")
    assert sum(message.type == "note_on" for message in mido.MidiFile(path)) == 24


@pytest.mark.slow
def test_it_plays_drums_where_they_are_asked_for() -> None:
    model = compose.load_model(FOLDER)

    def with_drums(prompt: str) -> int:
        asked = request.MusicRequest(prompt, outputs=32, max_notes=60)
        return sum(DRUM_PROGRAM in piece.table.programs() for piece in compose.compose(model, asked).pieces)

    loud = with_drums("Dark game music with distorted guitar, electric bass and drums.")
    quiet = with_drums("An art song for voice and piano, without drums.")
    # Were it deaf, so many more of 32 would happen once in a hundred seeds.
    assert loud >= quiet + 10
