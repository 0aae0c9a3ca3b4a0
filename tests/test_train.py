import subprocess
import sys
from pathlib import Path

import pytest


def command(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "midillm_jax.train", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--config is missing", "demo_stage1.py"]),
        (["--config", "stage9.py"], ["stage9.py", "no such file in", "stage1.py"]),
        (["--config", "demo_stage1.py"], ["demo/tokenizer.model"]),
    ],
)
def test_an_error_is_one_sentence_and_code_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_field_says_which_was_meant(tmp_path: Path) -> None:
    done = command("--config", "stage1.py", "--optimizer.learning-rat", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean --optimizer.learning-rate?" in done.stderr
    assert "Traceback" not in done.stderr


def test_traceback_shows_where_an_error_came_from(tmp_path: Path) -> None:
    done = command("--config", "stage9.py", "--traceback", cwd=tmp_path)
    assert "Traceback (most recent call last)" in done.stderr
    assert "stage9.py" in done.stderr


def test_help_shows_every_field_with_the_value_of_the_file(tmp_path: Path) -> None:
    done = command("--config", "stage2.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--data.anticipation.random" in done.stdout
    assert "19073" in done.stdout
