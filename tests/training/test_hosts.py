"""Several local processes under jax.distributed (gloo), as ``python -m midillm_jax.train`` runs on several hosts.

Four simulated devices are given to one process, two to each of two, or one to each of four.
"""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from midillm_jax import config as configs
from midillm_jax.config import Config
from midillm_jax.errors import UserError
from midillm_jax.model import hf, sharding
from midillm_jax.training import hosts
from midillm_jax.training.weights import load_params

LONGEST = 600
"""Seconds that a process may take on a machine that is busy with other things; it takes some ten on an idle one."""
TIMES = ("seconds", "tokens_per_second", "data_wait_share")
DIGESTS = """
import hashlib, json, sys
from pathlib import Path
import jax, numpy as np
from jax.experimental import multihost_utils
from midillm_jax import config as configs
from midillm_jax.model import sharding
from midillm_jax.training import hosts
from midillm_jax.training.checkpoint import Checkpoints
from midillm_jax.training.events import Events
from midillm_jax.training.step import make_training

with hosts.joined():
    run = configs.from_json(Path(sys.argv[1]).read_text(), "run")
    events = Events(Path(run.folder), active=hosts.is_first())
    checkpoints = Checkpoints(make_training(run, sharding.make_mesh(run.mesh)), events)
    state, streams, progress, step = checkpoints.restore()
    found = {"step": step, "streams": streams, "progress": progress}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        whole = np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        found[jax.tree_util.keystr(path)] = hashlib.sha256(whole.tobytes()).hexdigest()
    checkpoints.close()
    if hosts.is_first():
        Path(sys.argv[2]).write_text(json.dumps(found))
"""
"""A program: SHA-256 of every restored leaf, whole, and the rest of a checkpoint, as JSON."""


_started: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def _leaves_nothing_running() -> Iterator[None]:
    yield
    while _started:
        _started.pop().kill()


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that is over."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def start(
    arguments: Sequence[Sequence[str]], folder: Path, *, devices: int = 1, **environment: str
) -> "list[subprocess.Popen[str]]":
    """Python with the arguments of each process; all know each other through a port of this machine that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "COLUMNS": "200",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(len(arguments)),
    }
    folder.mkdir(exist_ok=True)
    processes = []
    for number, words in enumerate(arguments):
        # Files, as nobody reads a pipe while another process is waited for.
        with (folder / f"{number}.out").open("w") as out, (folder / f"{number}.err").open("w") as err:
            own = shared | environment | {"JAX_PROCESS_ID": str(number)}
            processes.append(subprocess.Popen([sys.executable, *words], stdout=out, stderr=err, env=own, text=True))
            _started.append(processes[-1])
    return processes


def ended(processes: "list[subprocess.Popen[str]]", folder: Path) -> list[Ended]:
    codes = [process.wait(timeout=LONGEST) for process in processes]
    return [
        Ended(code, (folder / f"{number}.out").read_text(), (folder / f"{number}.err").read_text())
        for number, code in enumerate(codes)
    ]


def command(run: Config, folder: Path, *overrides: str) -> list[str]:
    file = folder / f"{Path(run.folder).name}.py"
    file.write_text(
        "from midillm_jax import config\n\n"
        f"def get_config():\n    return config.from_json({configs.to_json(run)!r}, 'test')\n"
    )
    return ["-m", "midillm_jax.train", "--config", str(file), *overrides]


def train(run: Config, folder: Path, processes: int, devices: int) -> list[Ended]:
    logs = folder / f"{Path(run.folder).name}-logs"
    done = ended(start([command(run, folder)] * processes, logs, devices=devices), logs)
    assert [each.code for each in done] == [0] * processes, done
    return done


def log_of(run: Config | Path) -> list[dict[str, str]]:
    folder = Path(run.folder) if isinstance(run, Config) else run
    with (folder / "log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def assert_same_log(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    """Rows for rows; figures to 1e-5, gradient norms, which add up far more terms in another order, to 1e-4."""
    assert [(row["step"], row["kind"]) for row in one] == [(row["step"], row["kind"]) for row in other]
    for mine, theirs in zip(one, other, strict=True):
        for name, value in mine.items():
            if name != "kind" and value:
                rtol = 1e-4 if name == "gradient_norm" else 1e-5
                np.testing.assert_allclose(float(theirs[name]), float(value), rtol=rtol, err_msg=f"{name} {mine}")


@pytest.fixture
def wide(run: Config) -> Config:
    """Rows and streams for four processes; every checkpoint is kept."""
    data = dataclasses.replace(run.data, music_rows=4, text_rows=4, streams=4)
    return dataclasses.replace(run, data=data, checkpoint=dataclasses.replace(run.checkpoint, keep=9))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of this module, by the number of their processes."""
    return tmp_path_factory.mktemp("shelf")


def finished(wide: Config, shelf: Path, processes: int) -> Path:
    """The run folder of ``wide`` trained by so many processes."""
    run = dataclasses.replace(wide, run_dir=str(shelf / f"by{processes}"))
    if not Path(run.folder).exists():
        train(run, shelf, processes, 4 // processes)
    return Path(run.folder)


def digests(folder: Path, tmp_path: Path, processes: int) -> dict[str, object]:
    """What so many processes restore from a run folder."""
    out, logs = tmp_path / f"digests{processes}.json", tmp_path / f"digests{processes}"
    words = ["-c", DIGESTS, str(folder / "config.json"), str(out)]
    done = ended(start([words] * processes, logs, devices=4 // processes), logs)
    assert [each.code for each in done] == [0] * processes, done
    found: dict[str, object] = json.loads(out.read_text())
    return found


def test_a_mistake_of_all_is_told_once(wide: Config, tmp_path: Path) -> None:
    arguments = command(wide, tmp_path, "--optimizer.beta1", "2")
    done = ended(start([arguments] * 2, tmp_path / "logs"), tmp_path / "logs")
    assert [each.code for each in done] == [2, 2], done
    assert done[0].errors == ["error: optimizer.beta1 is 2.0; expected 0 or more, below 1."]
    assert done[1].errors == []
    assert "Traceback" not in done[0].err + done[1].err
    assert not Path(wide.folder).exists()


@pytest.mark.slow
def test_one_that_fails_alone_ends_the_others(wide: Config, tmp_path: Path) -> None:
    arguments = [command(wide, tmp_path), command(wide, tmp_path, "--data.tokenizer", "nowhere.model")]
    done = ended(start(arguments, tmp_path / "logs", MIDILLM_HEARTBEAT_SECONDS="20"), tmp_path / "logs")
    assert done[1].code == 2, done
    assert len(done[1].errors) == 1
    assert "nowhere.model" in done[1].errors[0]
    assert done[0].code not in (0, 2)
    assert "process 1: UserError: " in done[0].err
    assert "nowhere.model" in done[0].err


@pytest.mark.slow
def test_one_that_is_killed_ends_the_others(wide: Config, tmp_path: Path) -> None:
    long = dataclasses.replace(wide, steps=100_000, log_every_steps=1, eval=dataclasses.replace(wide.eval, batches=1))
    processes = start([command(long, tmp_path)] * 2, tmp_path / "logs", MIDILLM_HEARTBEAT_SECONDS="5")
    wait_for_rows(long, 2)
    processes[1].kill()
    done = ended(processes, tmp_path / "logs")
    assert done[0].code not in (0, 2)


def without_gloo(said: str) -> str:
    """Without what Gloo's threads say of their connections, piece by piece and into each other's lines."""
    pieces = r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :"
    return re.sub(rf"({pieces}) *\d*", "", re.sub(rf"\d+ (?={pieces})", "", said))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_log_what_one_does(wide: Config, shelf: Path, processes: int) -> None:
    alone, folder = finished(wide, shelf, 1), finished(wide, shelf, processes)
    assert len(log_of(alone)) == 5
    assert_same_log(log_of(alone), log_of(folder))
    for number in range(1, processes):
        assert without_gloo((shelf / f"by{processes}-logs" / f"{number}.out").read_text()).split() == []
    assert "done: " in (shelf / f"by{processes}-logs" / "0.out").read_text()
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_a_checkpoint_is_the_same_for_any_number_of_processes(wide: Config, shelf: Path, tmp_path: Path) -> None:
    for writers in (1, 2):
        folder = finished(wide, shelf, writers)
        found = digests(folder, tmp_path, 1)
        assert found["step"] == 6
        assert {"0", "1", "2", "3"} < set(found["streams"])  # type: ignore[call-overload]
        assert len(found) > 20
        for readers in (2, 4):
            assert digests(folder, tmp_path, readers) == found


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 4), (2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    wide: Config, shelf: Path, tmp_path: Path, before: int, after: int
) -> None:
    whole = finished(wide, shelf, before)
    shutil.copytree(whole, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if checkpoint.name.isdigit() and int(checkpoint.name) > 2:
            shutil.rmtree(checkpoint)
    done = train(dataclasses.replace(wide, run_dir=str(tmp_path / "run")), tmp_path, after, 4 // after)
    assert "resumed at step 2" in done[0].out
    assert_same_log(log_of(whole), log_of(tmp_path / "run"))
    one, other = load_params(str(whole))[1], load_params(str(tmp_path / "run"))[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), one, other)


@pytest.mark.slow
def test_weights_of_several_processes_begin_a_run_and_are_exported(wide: Config, shelf: Path, tmp_path: Path) -> None:
    source = finished(wide, shelf, 2)
    weights = load_params(str(source))[1]
    words = ["-m", "midillm_jax.export", "--checkpoint", str(source), "--out", str(tmp_path / "model")]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    exported = hf.read_hf(tmp_path / "model", vocab_multiple=wide.model.vocab_multiple)[1]
    rows = wide.model.vocab_size
    np.testing.assert_array_equal(exported["embedding"][:rows], weights["embedding"][:rows])
    np.testing.assert_array_equal(exported["final_norm"], weights["final_norm"])

    logs = []
    for processes in (1, 2):
        second = dataclasses.replace(wide, run_dir=str(tmp_path / f"by{processes}"), init_from=str(source), seed=1)
        second = dataclasses.replace(second, steps=2, eval=dataclasses.replace(wide.eval, every_steps=2))
        train(second, tmp_path, processes, 4 // processes)
        logs.append(log_of(second))
    assert_same_log(*logs)
    assert float(logs[0][0]["loss"]) < float(log_of(source)[0]["loss"])


@pytest.mark.slow
def test_eight_devices_of_two_processes_are_exported_on_one(wide: Config, tmp_path: Path) -> None:
    data = dataclasses.replace(wide.data, music_rows=8, text_rows=8, streams=8)
    brief = dataclasses.replace(wide.eval, every_steps=2)
    run = dataclasses.replace(wide, run_dir=str(tmp_path / "run"), steps=2, data=data, eval=brief)
    train(run, tmp_path, 2, 4)
    assert "8 x cpu" in (Path(run.folder) / "environment.json").read_text()
    # One device here. What is read is held to the digests that the eight computed (training/stored.py).
    assert jax.device_count() == 1
    words = ["-m", "midillm_jax.export", "--checkpoint", run.folder, "--out", str(tmp_path / "model")]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    rows = wide.model.vocab_size
    exported = hf.read_hf(tmp_path / "model", vocab_multiple=wide.model.vocab_multiple)[1]
    np.testing.assert_array_equal(exported["embedding"][:rows], load_params(run.folder)[1]["embedding"][:rows])


@pytest.mark.slow
def test_a_tensor_axis_may_span_processes(wide: Config, shelf: Path, tmp_path: Path) -> None:
    mesh = dataclasses.replace(wide.mesh, fsdp=2, tensor=2)
    logs = []
    for processes, devices in ((1, 4), (4, 1)):
        run = dataclasses.replace(wide, run_dir=str(tmp_path / f"by{processes}"), mesh=mesh)
        train(run, tmp_path, processes, devices)
        logs.append(log_of(run))
    assert_same_log(*logs)
    assert_same_log(log_of(finished(wide, shelf, 1)), logs[1])


@pytest.mark.slow
def test_a_stop_of_one_is_a_stop_of_all_after_the_same_step(wide: Config, tmp_path: Path) -> None:
    run = dataclasses.replace(wide, steps=14, log_every_steps=1, eval=dataclasses.replace(wide.eval, every_steps=14))
    alone = dataclasses.replace(run, run_dir=str(tmp_path / "alone"))
    train(alone, tmp_path, 1, 4)
    processes = start([command(run, tmp_path)] * 2, tmp_path / "logs", devices=2)
    wait_for_rows(run, 3)
    processes[1].send_signal(signal.SIGTERM)
    done = ended(processes, tmp_path / "logs")
    assert [each.code for each in done] == [143, 143], done
    stopped = [line for line in done[0].out.splitlines() if line.startswith("stopped after step ")]
    assert len(stopped) == 1
    step = stopped[0].split()[3].rstrip(",")
    assert int(step) < 14
    assert log_of(run)[-1]["step"] == step
    assert f"resumed at step {step}" in train(run, tmp_path, 2, 2)[0].out
    assert_same_log(log_of(alone), log_of(run))


def wait_for_rows(run: Config, rows: int) -> None:
    log, deadline = Path(run.folder) / "log.csv", time.monotonic() + LONGEST
    while not (log.exists() and len(log.read_text().splitlines()) > rows):
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.05)


class _Device:
    def __init__(self, process: int) -> None:
        self.process_index = process


def shares(owners: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int]]:
    """Each process's share on a mesh of fsdp x tensor devices that belong to these processes."""
    devices = np.array([[[[_Device(owner) for owner in row] for row in owners]]], dtype=object)
    mesh = jax.sharding.AbstractMesh(devices.shape, sharding.AXES)
    found = {}
    numbers = sorted({owner for row in owners for owner in row})
    monkeypatch.setattr(jax, "process_count", lambda: len(numbers))
    for number in numbers:
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        found[number] = hosts.batch_share(_Mesh(devices, mesh))  # type: ignore[arg-type]
    return found


class _Mesh:
    """Devices of hosts that are not here, in a mesh."""

    def __init__(self, devices: np.ndarray, mesh: jax.sharding.AbstractMesh) -> None:
        self.devices, self.axis_names, self.shape = devices, mesh.axis_names, mesh.shape


def test_processes_that_hold_the_same_rows_read_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares([[0], [0], [1], [1]], monkeypatch) == {0: (0, 2), 1: (1, 2)}
    # A TPU's hosts are squares of chips: 0 and 1 lie beside each other, 2 and 3 below them.
    squares = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert shares(squares, monkeypatch) == {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}
    assert shares([[0, 1], [0, 1]], monkeypatch) == {0: (0, 1), 1: (0, 1)}
    with pytest.raises(UserError, match="tensor axis of 3 devices splits rows unevenly over 2 processes"):
        shares([[0, 0, 0], [0, 1, 1], [1, 1, 1]], monkeypatch)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID missing in the environment"),
        ({"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES missing"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two' in the environment; expected a number"),
        (
            {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"},
            "JAX_PROCESS_ID is '2'; expected 0 to 1",
        ),
        (
            {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "elsewhere"},
            "JAX_COORDINATOR_ADDRESS is 'elsewhere'; expected host:port",
        ),
        ({"MIDILLM_HEARTBEAT_SECONDS": "0"}, "MIDILLM_HEARTBEAT_SECONDS is '0'"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words), hosts.joined():
        pass


def test_a_machine_alone_asks_nobody() -> None:
    """Neither where there is no TPU, nor on the one host of a TPU slice, whose name need not resolve (Kaggle)."""
    program = (
        "import socket\n"
        "def refuse(*arguments, **options): raise AssertionError(f'asks the network: {arguments}')\n"
        "socket.getaddrinfo = socket.gethostbyname = socket.create_connection = socket.socket.connect = refuse\n"
        "from midillm_jax.training import hosts\n"
        "import jax\n"
        "with hosts.joined(): print(jax.process_count(), jax.distributed.is_initialized(), hosts.is_first())\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    # The library only has to be a file that is there: nothing is computed on the TPU that jax is told of.
    tpu = {"JAX_FORCE_TPU_INIT": "1", "TPU_LIBRARY_PATH": sys.executable, "TPU_PROCESS_ADDRESSES": "local"}
    for environment in ({}, tpu):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "1 False True\n", done.stderr
