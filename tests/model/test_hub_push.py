"""Uploads to a stand-in for the Hub on this machine: what arrives, and what is refused."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.model import hf_write
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.tokenizer import train_sentencepiece
from tests.model import hub_server

pytestmark = pytest.mark.slow

NAME = f"{hub_server.OWNER}/music"


@pytest.fixture(scope="module")
def folder(tiny_model: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in three files of weights, with a card."""
    home = tmp_path_factory.mktemp("model")
    config = dataclasses.replace(tiny_model, text_vocab_size=290)
    tokenizer = train_sentencepiece(["one two three four five six seven eight nine ten"], home / "words.model", 290)
    params = Definition(config, INFERENCE).init(jax.random.key(0))
    documents = {"README.md": "---\nlibrary_name: transformers\n---\n\n# music\n"}
    return hf_write.write_hf(home / "out", config, params, tokenizer, shard_bytes=70_000, documents=documents)


@pytest.fixture
def hub() -> Iterator[hub_server.Hub]:
    with hub_server.running({}) as running:
        yield running


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def push(
    hub: hub_server.Hub, folder: Path, home: Path, *more: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    words = ["-m", "midillm_jax.export", "--checkpoint", str(folder), "--push-to-hub", NAME, *more]
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": hub_server.TOKEN,
    }
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=os.environ | settings | environment, check=False
    )


def test_what_arrives_are_the_files(hub: hub_server.Hub, folder: Path, tmp_path: Path) -> None:
    before = content(folder)
    done = push(hub, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{hub.endpoint}/{NAME}"]
    size = sum(map(len, before.values())) / 1e9
    said = f"{NAME}: sending {size:.2f} GB in {len(before)} files from {folder} to {hub.endpoint}, for everyone to see"
    assert said in done.stderr
    assert hub.models[NAME] == before == content(folder)
    assert len(hub.large) == sum(name.endswith(".safetensors") for name in before) > 1
    # What was sent can be fetched by its name.
    program = "import sys; from midillm_jax.model import hub; print(hub.local_folder(sys.argv[1]))"
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    fetched = subprocess.run(
        [sys.executable, "-c", program, NAME], capture_output=True, text=True, env=os.environ | environment, check=True
    )
    found = content(Path(fetched.stdout.strip()))
    assert found == {name: data for name, data in before.items() if name != "README.md"}


def test_weights_of_an_earlier_push_do_not_stay_beside_the_new(
    hub: hub_server.Hub, folder: Path, tmp_path: Path
) -> None:
    theirs = {"notes.txt": b"mine", "adapter.safetensors": b"mine too"}
    hub.models[NAME] = {"model.safetensors": b"old", "README.md": b"old", **theirs}
    done = push(hub, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.models[NAME] == content(folder) | theirs


def test_private_is_private(hub: hub_server.Hub, folder: Path, tmp_path: Path) -> None:
    done = push(hub, folder, tmp_path, "--private")
    assert done.returncode == 0, done.stderr
    assert hub.private == {NAME}
    assert f"to {hub.endpoint}, private" in done.stderr
    # A repository that is there already stays what it is; what was to be private does not go into a public one.
    hub.private.clear()
    hub.models[NAME].clear()
    refused = push(hub, folder, tmp_path, "--private")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: --push-to-hub {NAME}: this repository is there already and everyone can")
    assert refused.stderr.count("\n") == 1
    assert hub.models[NAME] == {}


@pytest.mark.parametrize(
    ("environment", "said", "asks"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids to ask the Hub", False),
        ({"HF_TOKEN": ""}, "nobody is logged in to http://127.0.0.1", False),
        ({"HF_TOKEN": "hf_another"}, "does not know the token of this machine", True),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be sent to http://127.0.0.1:9", False),
    ],
)
def test_who_may_not_is_told_in_one_sentence(
    hub: hub_server.Hub, folder: Path, tmp_path: Path, environment: dict[str, str], said: str, asks: bool
) -> None:
    done = push(hub, folder, tmp_path, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --push-to-hub {NAME}: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert bool(hub.sent) == asks
    assert hub.models == {}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--push-to-hub", "somebody/music"), "does not let this user write there"),
        (("--push-to-hub", "music"), "error: --push-to-hub music: expected OWNER/NAME"),
        (("--checkpoint", "{empty}"), "{empty}: is not an export of midillm_jax"),
        (("--push-to-hub", "", "--private"), "error: --private goes with --push-to-hub"),
    ],
)
def test_what_cannot_be_sent_is_said(
    hub: hub_server.Hub, folder: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    done = push(hub, folder, tmp_path / "home", *(word.format(empty=empty) for word in more))
    assert done.returncode == 2, done.stderr
    assert said.format(empty=empty) in done.stderr
    assert done.stderr.count("\n") == 1
    assert hub.models == {}
