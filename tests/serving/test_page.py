"""The page itself: the command, what it refuses over HTTP, and people's ways over it in a headless Chromium."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from midillm_jax.music.clock import bar_map
from midillm_jax.music.parts import read_notes
from midillm_jax.music.render import find_soundfont
from midillm_jax.music.score import read_score
from midillm_jax.music.vocab import DRUM_PROGRAM
from midillm_jax.serving.versions import MAX_FILE_BYTES
from tests.inference.parts import band_files, untrained

PATIENCE = 120
LONG_PATIENCE = 120
"""For music of the model in the box on a busy machine."""


class Served:
    """The command in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "midillm_jax.serve", "--port", "0", *arguments]
        self.run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.run.stdout is not None
        self.line = self.run.stdout.readline()
        self.url = self.line.partition(" ")[0]

    def interrupt(self) -> tuple[int, str]:
        """Exit code and stderr."""
        self.run.send_signal(signal.SIGINT)
        _, errors = self.run.communicate(timeout=PATIENCE)
        return self.run.returncode, errors


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    process = Served(*arguments)
    try:
        yield process
    finally:
        process.run.kill()
        process.run.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def page(model: Path) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with served("--model", str(model)) as process:
        yield process


def test_the_page_is_there_and_asks_nothing_of_other_machines(page: Served) -> None:
    assert page.line == f"{page.url} is the page; open it in a browser. Ctrl-C ends it.\n"
    assert page.url.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=page.url, timeout=PATIENCE) as client:
        config = client.get("/config").raise_for_status().json()
        html = client.get("/").raise_for_status().text
    assert config["title"] == "midillm"
    assert not config["analytics_enabled"]
    for tag in ("<script", "<link"):
        for part in html.split(tag)[1:]:
            assert "https://" not in part.partition(">")[0]


def test_ctrl_c_ends_it_at_once_with_a_tab_open(model: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with (
        served("--model", str(model)) as page,
        # A tab keeps this stream open as long as it lives.
        httpx.stream("GET", f"{page.url}/gradio_api/heartbeat/some-tab", timeout=PATIENCE) as stream,
    ):
        next(stream.iter_bytes())
        code, errors = page.interrupt()
    assert code == 130
    assert "stopped; " in errors
    assert "Traceback" not in errors


def test_files_of_the_machine_are_not_for_the_page(page: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mid"
    secret.write_text("MThd secret")
    with httpx.Client(base_url=page.url, timeout=PATIENCE) as client:
        for path in (str(secret), "/etc/passwd", "../../etc/passwd", f"{page.url}/../{secret}"):
            answer = client.get(f"/gradio_api/file={path}")
            assert answer.status_code in (400, 403, 404), path
            assert "secret" not in answer.text.replace(str(secret), "").replace("secret.mid", "")
        said = ask(client, "open", [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}])
    assert not said["success"]
    assert "MThd secret" not in json.dumps(said)


def test_a_file_of_100_mb_is_refused_by_its_size(page: Served) -> None:
    with httpx.Client(base_url=page.url, timeout=PATIENCE) as client:
        answer = client.post("/gradio_api/upload", files={"files": ("big.mid", bytes(100_000_000))})
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text
    assert str(MAX_FILE_BYTES) in answer.text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "la " * 100_000}, "The prompt has 299,999 letters, and may have 2,000"),
        ({"kind": "edit", "words": "la " * 100_000}, "There is no piece yet to edit"),
        ({"seed": "../../etc/passwd"}, "Seed &#x27;../../etc/passwd&#x27;: expected a number, or nothing"),
        ({"seed": "1.5"}, "Seed 1.5: expected a whole number"),
        ({"tempo": "9e999"}, "Tempo inf: expected 20 to 400"),
        ({"candidates": 1_000_000}, "The number of candidates is 1000000; expected 1 to 8"),
        ({"kind": "infill", "where": "9" * 100_000, "velocity": "nan"}, "Velocity nan: expected a whole number"),
    ],
)
def test_a_wish_that_bypasses_the_browser_is_answered_by_a_sentence(
    page: Served, fields: dict[str, Any], expected: str
) -> None:
    with httpx.Client(base_url=page.url, timeout=PATIENCE) as client:
        said = ask(client, "write", wish(client, fields))
    status = said["output"]["data"][0]
    assert expected in status
    assert "Traceback" not in json.dumps(said)


def test_words_that_bypass_the_browser_are_answered_by_a_sentence(page: Served) -> None:
    with httpx.Client(base_url=page.url, timeout=PATIENCE) as client:
        said = ask(client, "show-plan", ["<script>alert(1)</script> " * 10_000])
    assert "There is no piece yet to edit" in said["output"]["data"][0]


def wish(client: httpx.Client, fields: dict[str, Any]) -> list[Any]:
    """What the page's write button sends, with some fields filled in."""
    config = client.get("/config").json()
    named = {each["id"]: each["props"] for each in config["components"]}
    button = next(number for number, props in named.items() if props.get("elem_id") == "write")
    event = next(each for each in config["dependencies"] if [button, "click"] in each["targets"])
    names = {named[number]["elem_id"] for number in event["inputs"]}
    assert fields.keys() <= names
    return [fields.get(named[number]["elem_id"], named[number].get("value")) for number in event["inputs"]]


def ask(client: httpx.Client, button: str, data: list[Any]) -> dict[str, Any]:
    """What the page's queue answers in the end to one who presses a button without a browser."""
    config = client.get("/config").json()
    ids = [each["id"] for each in config["components"] if each["props"].get("elem_id") == button]
    (event,) = (each["id"] for each in config["dependencies"] if any(target[0] in ids for target in each["targets"]))
    joined = {"data": data, "fn_index": event, "session_hash": f"no-browser-{time.monotonic_ns()}"}
    answer = client.post("/gradio_api/queue/join", json=joined)
    if answer.status_code != 200:
        return {"success": False, "output": answer.text}
    yielded = None
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": joined["session_hash"]}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") == "process_generating":
                yielded = message["output"]
            elif message.get("msg") == "process_completed":
                # What was yielded last stands; the end itself carries nothing then.
                return message if not message["success"] else {"success": True, "output": yielded or message["output"]}
    raise AssertionError("the queue ended without an answer")


@pytest.fixture
def tab() -> Iterator[Any]:
    """A tab of a headless Chromium, and all addresses that it asks for."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("MIDILLM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1360, "height": 860})
        tab.faults = []
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        yield tab
        browser.close()


_WATCH = """() => {
  window.seen = false;
  new MutationObserver(() => {
    const busy = document.querySelector("#status p.busy");
    if (busy && document.querySelector(".roll-facts").textContent) window.seen = true;
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


def eventually(holds: Callable[[], Any], seconds: float = LONG_PATIENCE) -> Any:
    """What a condition gives as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} seconds")


def taken_home(tab: Any, link: str) -> bytes:
    """What a link downloads."""
    with tab.expect_download() as download:
        tab.click(link)
    return Path(download.value.path()).read_bytes()


@pytest.mark.slow
def test_a_composer_writes_hears_fills_in_goes_back_edits_by_words_and_takes_it_home(tab: Any, tmp_path: Path) -> None:
    """With the model in the box, which nothing was named for."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    if shutil.which("fluidsynth") is None or find_soundfont() is None:
        pytest.skip("fluidsynth or a soundfont is not installed")
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))

    def status(begins: str, without: str = "Rendering") -> Callable[[], bool]:
        def holds() -> bool:
            said = tab.inner_text("#status p")
            return said.startswith(begins) and without not in said

        return holds

    def facts() -> str:
        return str(tab.inner_text(".roll-facts"))

    with served() as page:
        tab.goto(page.url)
        tab.wait_for_selector("#write", timeout=LONG_PATIENCE * 1000)
        # New: typed, begun by the keyboard, seen while it comes, heard.
        tab.fill("#prompt textarea", "A calm waltz for flute and piano.")
        tab.fill("#seconds input[type=number]", "10")
        tab.click("#more button")
        tab.fill("#seed textarea", "1")
        tab.evaluate(_WATCH)
        tab.press("#prompt textarea", "Control+Enter")
        eventually(status("Written: "))
        assert tab.evaluate("window.seen"), "notes appear while they are written"
        duration = eventually(lambda: tab.evaluate("document.querySelector('.roll audio').duration || 0"))
        assert 0 < duration < 60
        # A file of theirs; bars 3 and 4 chosen by keyboard, filled in by the better of two candidates, taken home.
        (own,) = band_files(tmp_path, 1)
        tab.set_input_files("input[type=file]", str(own))
        eventually(status("Opened"))
        whole = facts()
        tab.focus(".roll canvas")
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Shift+ArrowRight"):
            tab.keyboard.press(key)
        eventually(lambda: tab.input_value("#where textarea") == "3-4", 30)
        tab.fill("#candidates input", "2")
        tab.click("#write")
        eventually(status("Written: from bar 3 to 4"))
        assert "seed 1. 2 takes: " in tab.inner_text("#status p")
        eventually(lambda: facts() != whole, 30)
        assert "Filled in bars 3\u20134" in tab.inner_text("#versions")
        filled = read_score(taken_home(tab, ".roll-midi"))
        before = read_score(own.read_bytes())
        bars = bar_map(before)
        for one, other in ((before, filled), (filled, before)):
            outside = {note[:5] for note in read_notes(one).notes if not bars.start(3) <= note.onset < bars.start(5)}
            assert outside <= {note[:5] for note in read_notes(other).notes}
        # Back, and home.
        tab.click("#undo")
        eventually(status("Back to version 2"))
        eventually(lambda: facts() == whole, 30)
        assert taken_home(tab, ".roll-midi") == own.read_bytes()
        assert taken_home(tab, ".roll-sound").startswith(b"fLaC")
        assert taken_home(tab, ".roll-picture").startswith(b"<svg ")
        # Edited by words, by keyboard: what is not understood is named, the plan is shown, changed, done and undone.
        tab.click("#kind label:nth-child(6)")
        tab.fill("#words textarea", "make the chorus louder")
        tab.keyboard.press("Control+Enter")
        eventually(status("'chorus' is not understood"), 30)
        tab.fill("#words textarea", "everything an octave down")
        tab.keyboard.press("Shift+Enter")
        plan = "all: transpose -12 semitones [all]\n"
        eventually(lambda: tab.input_value("#plan textarea") == plan, 30)
        assert facts() == whole, "nothing is done yet"
        tab.fill("#plan textarea", plan + "bars 1-4: thin to 50% [all]")
        tab.keyboard.press("Control+Enter")
        eventually(status("Edited: all: transpose -12 semitones [all]: "))
        eventually(lambda: facts() != whole, 30)
        edited = read_notes(read_score(taken_home(tab, ".roll-midi"))).notes
        tuned = [note.pitch - 12 for note in read_notes(before).notes if note.part.program != DRUM_PROGRAM]
        assert min(note.pitch for note in edited if note.part.program != DRUM_PROGRAM) == min(tuned)
        assert len(edited) < len(read_notes(before).notes)
        tab.click("#undo")
        eventually(status("Back to version 2"))
        tab.fill("#words textarea", "something else")
        eventually(lambda: tab.input_value("#plan textarea") == "", 30)
        # Bars that are chosen in the roll go before the words of an edit.
        for key, words in (
            ("ArrowRight", "in bar 1, something else"),
            ("Shift+ArrowRight", "in bars 1-2, something else"),
            ("Escape", "something else"),
        ):
            tab.focus(".roll canvas")
            tab.keyboard.press(key)
            eventually(lambda words=words: tab.input_value("#words textarea") == words, 30)
        # Stopped in the middle: the engine is free, and what was there stays.
        tab.click("#kind label:nth-child(1)")
        tab.fill("#seconds input[type=number]", "300")
        tab.click("#write")
        eventually(lambda: tab.is_enabled("#stop"))
        tab.click("#stop")
        eventually(status("Stopped; nothing was kept of it"))
        assert facts() == whole
        assert not tab.faults
        assert not [url for url in asked if not url.startswith((page.url, "data:", "blob:"))]
        assert page.interrupt()[0] == 130
