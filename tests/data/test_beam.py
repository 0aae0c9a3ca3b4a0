"""Apache Beam's DirectRunner makes the very shards that local processes make."""

import io
import json
import tarfile
from pathlib import Path

import mido
import pytest

from midillm_jax.data import blocks
from midillm_jax.data.build import Runner, build, music_plan, text_plan
from midillm_jax.data.jobs import Filters
from midillm_jax.data.sources import captioned_files, midi_files, text_files
from midillm_jax.data.splits import SplitRule
from midillm_jax.errors import UserError
from midillm_jax.text.tokenizer import train_sentencepiece

DIRECT = Runner(beam="DirectRunner", beam_options=("direct_running_mode=in_memory", "direct_num_workers=2"))


def midi_bytes(notes: int) -> bytes:
    file = mido.MidiFile()
    track = mido.MidiTrack()
    file.tracks.append(track)
    for i in range(notes):
        track.append(mido.Message("note_on", note=30 + (i * notes) % 60, time=100))
        track.append(mido.Message("note_off", note=30 + (i * notes) % 60, time=100))
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_songs(folder: Path) -> None:
    """A tar of 70 songs with captions, and a folder of 40 others; some unreadable, some without a caption."""
    with tarfile.open(folder / "songs.tar.gz", "w:gz") as tar:
        for i in range(70):
            body = b"no MIDI" if i % 30 == 7 else midi_bytes(5 + i)
            member = tarfile.TarInfo(f"songs/{i:032x}.mid")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    rows = [{"location": f"songs/{i:032x}.mid", "caption": [f"song {i}"]} for i in range(3, 80)]
    (folder / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "more").mkdir()
    for i in range(40):
        (folder / "more" / f"{i}.mid").write_bytes(midi_bytes(100 + i))


def test_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_RECORDS", 16)  # so that there are several blocks a part
    write_songs(tmp_path)
    inputs = [str(tmp_path / "songs.tar.gz"), str(tmp_path / "more")]
    made = {}
    for name, runner in (("local", Runner(1)), ("beam", DIRECT)):
        listing = midi_files(inputs, source="", exclude=())
        plan = music_plan(listing, "midi", Filters(min_notes=7), SplitRule(validation_share=0.3))
        made[name] = build(listing, plan, tmp_path / name, runner=runner, overwrite=False)
    assert made["beam"] == made["local"]
    assert made["beam"].sources == {"more": 40, "songs": 65}  # 70 less three unreadable and two too short
    assert files(tmp_path / "beam") == files(tmp_path / "local")
    assert not (tmp_path / "beam.partial").exists()


def test_captions_travel_and_what_does_not_match_is_told(tmp_path: Path) -> None:
    write_songs(tmp_path)
    made = {}
    for name, runner in (("local", Runner(1)), ("beam", DIRECT)):
        archive = str(tmp_path / "songs.tar.gz")
        listing = captioned_files(str(tmp_path / "train.json"), midi=archive, source="", exclude=())
        plan = music_plan(listing, "pairs", Filters(), SplitRule())
        made[name] = build(listing, plan, tmp_path / name, runner=runner, overwrite=False)
    assert files(tmp_path / "beam") == files(tmp_path / "local")
    reasons = [reason for _, reason in made["beam"].rejected]
    assert reasons.count("no caption in train.json names it") == 3
    assert reasons.count("named in train.json, but there is no such file") == 10
    assert sum(split.records for split in made["beam"].splits.values()) == 70 - 3 - 3


def test_a_staging_folder_is_shared_with_others(tmp_path: Path) -> None:
    write_songs(tmp_path)
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "thesis.tex").write_text("years of work")
    listing = midi_files([str(tmp_path / "more")], source="", exclude=())
    plan = music_plan(listing, "midi", Filters(), SplitRule())
    runner = Runner(beam="DirectRunner", staging=str(staging))
    build(listing, plan, tmp_path / "out", runner=runner, overwrite=False)
    build(listing, plan, tmp_path / "out", runner=runner, overwrite=True)
    assert [path.name for path in staging.iterdir()] == ["thesis.tex"]


def test_text(tmp_path: Path) -> None:
    rows = [{"text": f"Page {i}: " + "a slow waltz in the evening. " * (i % 9)} for i in range(60)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_sentencepiece([row["text"] for row in rows], tmp_path / "t.model", 300)
    for name, runner in (("local", Runner(2)), ("beam", DIRECT)):
        listing = text_files([str(tmp_path / "t.jsonl")], source="", exclude=(), document_bytes=64)
        plan = text_plan(str(tmp_path / "t.model"), SplitRule("hash", 0.2))
        build(listing, plan, tmp_path / name, runner=runner, overwrite=False)
    assert files(tmp_path / "beam") == files(tmp_path / "local")


def test_a_runner_that_does_not_exist(tmp_path: Path) -> None:
    write_songs(tmp_path)
    listing = midi_files([str(tmp_path / "more")], source="", exclude=())
    plan = music_plan(listing, "midi", Filters(), SplitRule())
    with pytest.raises(UserError, match=r"--runner SparkleRunner: Apache Beam cannot set it up"):
        build(listing, plan, tmp_path / "out", runner=Runner(beam="SparkleRunner"), overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "songs.tar.gz", "train.json"]
