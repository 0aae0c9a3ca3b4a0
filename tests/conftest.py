"""What all tests share: JAX on simulated CPU devices, a tiny model's shape, the goldens, and the list of skips."""

import fnmatch
import os
from pathlib import Path

import pytest
from packaging.markers import Marker

from midillm_jax.config import ModelConfig, RopeScaling

ROOT = Path(__file__).resolve().parent.parent

# JAX reads these when it is first imported. They are set here, and not by importing jax, so that tests of rooms
# that work without jax start fast; a test's own subprocesses inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# LLVM's costly passes are left out: most of what tests compile runs for milliseconds. XLA's own passes stay.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A second thread of torch is in the way of the other worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Recorded input and output of the reference tokenizer: MIDILLM_GOLDEN_DIR, else ../shared/golden."""
    folder = Path(os.environ.get("MIDILLM_GOLDEN_DIR", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no goldens at {folder}; MIDILLM_GOLDEN_DIR names their folder")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> ModelConfig:
    """A Llama of 100 text rows whose every number differs from its default and from the other numbers.

    Heads are grouped, head_dim is not D / N, rotary frequencies are stretched, the table is tied.
    """
    return ModelConfig(
        text_vocab_size=100,
        d_model=48,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=16,
        d_ff=80,
        context_length=256,
        rope_theta=5_000.0,
        rms_norm_eps=3e-4,
        tie_embeddings=True,
        rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=32),
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer, text shards and captioned shards of forty demo pieces, made by the commands themselves."""
    from midillm_jax import prepare  # imported here, as tests of most rooms do without

    folder = tmp_path_factory.mktemp("corpus")
    band, model = str(folder / "band"), str(folder / "tokenizer.model")
    prepare.main(["demo", "--out", band, "--pieces", "40", "--profile", "small"])
    prepare.main(["tokenizer", "--input", band, "--vocab-size", "600", "--out", model])
    split = ["--validation-share", "0.2", "--workers", "1"]
    prepare.main(["text", "--input", f"{band}/text", "--tokenizer", model, "--out", str(folder / "text"), *split])
    prepare.main(["pairs", "--input", band, "--out", str(folder / "pairs"), *split])
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--allowed-skips",
        type=Path,
        help="file of test ids that may be skipped (tests/allowed_skips.txt); any other skip fails the run",
    )


_skips = pytest.StashKey[dict[str, str]]()


class _SkipRecorder:
    """Collects the skips of this process or, under xdist, of all its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.skips = config.stash[_skips] = {}

    def _record(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips[report.nodeid] = reason.removeprefix("Skipped: ")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._record(report)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_SkipRecorder(config))


def unlisted_skips(config: pytest.Config) -> dict[str, str]:
    """Skipped test id -> reason, for those that no line of the file of allowed skips covers."""
    file: Path | None = config.getoption("--allowed-skips")
    if file is None:
        return {}
    allowed = []
    for line in file.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            test, reason, *marker = (part.strip() for part in line.split("|"))
            if not marker or Marker(marker[0]).evaluate():
                allowed.append((test, reason))
    return {
        test: reason
        for test, reason in config.stash[_skips].items()
        if not any(fnmatch.fnmatchcase(test, t) and fnmatch.fnmatchcase(reason, r) for t, r in allowed)
    }


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and unlisted_skips(session.config) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    unlisted = unlisted_skips(config)
    if unlisted:
        terminalreporter.section(f"skips not listed in {config.getoption('--allowed-skips')}", red=True)
        for test, reason in sorted(unlisted.items()):
            terminalreporter.line(f"{test}: {reason}")
