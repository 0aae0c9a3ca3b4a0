"""``evaluate runs`` on runs that training itself left: finished, stopped, killed while it wrote, with samples."""

import dataclasses
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from midillm_jax import evaluate
from midillm_jax.config import Config, SamplesConfig
from midillm_jax.training.loop import train


class Page(HTMLParser):
    """What a browser would fetch, show and not find closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def trained(run: Config, tmp_path: Path) -> Path:
    """``whole``: six steps and samples; ``slow``: another learning rate, of which the last row is torn."""
    with_samples = dataclasses.replace(
        run,
        name="whole",
        run_dir=str(tmp_path / "whole"),
        samples=SamplesConfig(every_steps=3, prompts=("", "A waltz."), max_notes=16, max_seconds=20.0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # no FluidSynth
        train(with_samples)
    optimizer = dataclasses.replace(run.optimizer, learning_rate=1e-3)
    train(dataclasses.replace(run, name="slow", run_dir=str(tmp_path / "slow"), optimizer=optimizer))
    log = tmp_path / "slow" / "log.csv"
    log.write_bytes(log.read_bytes()[:-7])
    return tmp_path


def test_two_runs_become_a_page(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "new" / "page"
    evaluate.main(["runs", str(trained / "whole"), str(trained / "slow"), "--out", str(out)])
    said = capsys.readouterr().out.splitlines()[-3:]
    assert said[0].startswith("whole: step 6 of 6, loss ")
    assert said[1].startswith("slow: step 6 of 6, loss ")
    assert "(best " in said[1]
    assert said[2] == f"the page is {out / 'index.html'}"
    assert [path.name for path in out.iterdir()] == ["index.html"]
    page = Page((out / "index.html").read_text())
    assert not page.open
    assert "script" not in page.tags
    assert len(page.links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in page.links), "the page is whole by itself"
    for title in ("Loss", "Music", "Text", "Onsets", "Learning rate", "Gradient norm", "Speed", "Waiting for data"):
        assert title in page.words
    assert "optimizer.learning_rate0.010.001" in page.words
    assert "optimizer.warmup_steps" not in page.words, "the same in both"
    assert "Samples" in page.words
    assert "slow: log.csv ended inside a line" in page.words
    assert "whole: log.csv" not in page.words


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "midillm_jax.evaluate", "runs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (f"error: {tmp_path / 'nowhere'}: holds no log.csv; expected the folder of a training run\n")
    assert not (tmp_path / "o").exists()
