"""A build that is killed goes on with what it has, and ends with the bytes of one that was left alone."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import mido
import pytest

ROOT = Path(__file__).parents[2]
BLOCK = 256
"""Records of a block: data/blocks.py."""


def midi_bytes(seed: int) -> bytes:
    rng = random.Random(seed)
    file = mido.MidiFile(ticks_per_beat=100)
    track = mido.MidiTrack()
    file.tracks.append(track)
    for _ in range(40):
        pitch = rng.randrange(30, 90)
        track.append(mido.Message("note_on", note=pitch, time=rng.randrange(90)))
        track.append(mido.Message("note_off", note=pitch, time=rng.randrange(1, 90)))
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 12 blocks and a half, one file in 50 of it unreadable."""
    path = tmp_path_factory.mktemp("resume") / "songs.tar.gz"
    bodies = [midi_bytes(seed) for seed in range(97)]
    with tarfile.open(path, "w:gz") as tar:
        for i in range(BLOCK * 25 // 2):
            body = b"no MIDI" if i % 50 == 49 else bodies[i % 97]
            member = tarfile.TarInfo(f"songs/{i:05d}.mid")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return path


def start(archive: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "midillm_jax.prepare", "midi", "--input", str(archive), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "--workers", "2", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said, errors


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished_blocks(out: Path) -> int:
    blocks = out.with_name(out.name + ".partial") / "blocks"
    return len([path for path in blocks.glob("part-*") if path.suffix != ".partial"])


def kill_when(process: subprocess.Popen[str], out: Path, blocks: int, after: float, by: signal.Signals) -> bool:
    """Kills once so many blocks are there; False if the build was done before."""
    deadline = time.monotonic() + 60
    while finished_blocks(out) < blocks and process.poll() is None and not out.exists():
        assert time.monotonic() < deadline, "no block was finished"
        time.sleep(0.005)
    time.sleep(after)
    process.send_signal(by)
    process.communicate(timeout=60)
    return process.returncode != 0


def interrupted_build(archive: Path, out: Path, kills: int, seed: int, by: signal.Signals) -> str:
    """Kills a build again and again, then lets it end; returns what the last run said on stderr."""
    rng = random.Random(seed)
    for _ in range(kills):
        before = finished_blocks(out)
        # Now and then before anything new is done, else after a block or two.
        process = start(archive, out)
        killed = kill_when(process, out, before + rng.randrange(3), rng.random() * 0.1, by)
        assert not out.exists() or (out / "manifest.json").exists()
        if not killed or out.exists():  # in place, only its blocks were still to be cleared away
            break
        assert finished_blocks(out) >= before  # what was done stays done
    return finish(start(archive, out))[1]


@pytest.mark.parametrize("by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_build_goes_on(archive: Path, tmp_path: Path, by: signal.Signals) -> None:
    finish(start(archive, tmp_path / "alone"))
    out = tmp_path / "out"
    assert kill_when(start(archive, out), out, 3, 0.0, by)
    done = finished_blocks(out)
    assert 3 <= done < 13
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial" / "blocks").glob("part-*")}
    process = start(archive, out)
    assert kill_when(process, out, done + 1, 0.0, by)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial" / "blocks").glob("part-*")}
    assert {name: now[name] for name in kept if not name.endswith(".partial")} == {
        name: time for name, time in kept.items() if not name.endswith(".partial")
    }
    _, errors = finish(start(archive, out))
    assert "an earlier run left" in errors
    assert files(out) == files(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_build_that_is_killed_again_and_again(archive: Path, tmp_path: Path, seed: int) -> None:
    finish(start(archive, tmp_path / "alone"))
    interrupted_build(archive, tmp_path / "out", 12, seed, signal.SIGKILL)
    assert files(tmp_path / "out") == files(tmp_path / "alone")


@pytest.mark.slow
def test_other_inputs_or_options_begin_anew(archive: Path, tmp_path: Path) -> None:
    """Blocks of one build are never taken for those of another."""
    out, copy = tmp_path / "out", tmp_path / "songs.tar.gz"
    shutil.copy(archive, copy)
    assert kill_when(start(copy, out), out, 2, 0.0, signal.SIGKILL)
    assert kill_when(start(copy, out, "--validation-share", "0.5"), out, 2, 0.0, signal.SIGKILL)
    os.utime(copy, (1, 1))  # written to since, for all that can be told
    _, errors = finish(start(copy, out, "--validation-share", "0.5"))
    assert "an earlier run had other inputs or options; beginning anew" in errors
    finish(start(archive, tmp_path / "alone", "--validation-share", "0.5"))
    assert files(out) == files(tmp_path / "alone")
