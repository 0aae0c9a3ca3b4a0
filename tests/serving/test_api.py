"""The HTTP API as clients meet it: a real server on the loopback, a real engine, real connections that end early."""

import base64
import json
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from midillm_jax.inference.compose import compose, load_model
from midillm_jax.inference.engine import Stage, Written
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.serving import session
from midillm_jax.serving.schema import Music
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer
from tests.serving.parts import Served, SteppedEngine, make_folder, make_model, serving, wait_until

Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@pytest.fixture
def server(tokenizer: Tokenizer) -> Iterator[Served]:
    with serving(make_model(tokenizer), max_waiting=4) as served:
        yield served


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events, by the letter of the standard as far as this API uses it."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
        else:
            assert not line or line.startswith(":"), line


def stream(server: Served, **fields: Any) -> Events:
    with server.client.stream("POST", "/v1/music", json=fields | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


COUNTED = ("tokens_total", "first_note_seconds_count", "first_note_seconds_sum", "request_seconds_sum")


def test_the_answer_is_what_compose_writes(folder: Path) -> None:
    model = load_model(folder, "jax")
    request = MusicRequest("a warm drum plays", outputs=2, seed=11, max_notes=30, programs=(0, 24, 128))
    composed = compose(model, request)
    with serving(model) as server:
        answer = server.post(prompt="a warm drum plays", n=2, seed=11, max_notes=30, programs=[0, 24, 128])
        counted = {name: server.metric(f"midillm_{name}") for name in COUNTED}
        done = server.metric("midillm_requests_total", outcome="done")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["engine"]) == ("small", "jax")
    assert [base64.b64decode(piece["midi"]) for piece in body["pieces"]] == [piece.midi for piece in composed.pieces]
    for piece, expected in zip(body["pieces"], composed.pieces, strict=True):
        assert piece["notes"] == len(expected.table)
        assert piece["seconds"] == expected.table.seconds()
        assert piece["instruments"] == [PROGRAM_NAMES[program] for program in expected.table.programs()]
        assert piece["closed"] == expected.closed
    times = body["timings"]
    assert 0 <= times["queued"] <= times["first_note"] <= times["total"]
    assert done == 1
    assert counted == {
        "tokens_total": sum(len(piece.amt_ids) for piece in composed.pieces),
        "first_note_seconds_count": 1,
        "first_note_seconds_sum": pytest.approx(times["first_note"], abs=1e-3),
        "request_seconds_sum": pytest.approx(times["total"], abs=1e-3),
    }


def test_a_stream_tells_notes_then_pieces_then_the_end(tokenizer: Tokenizer) -> None:
    model = make_model(tokenizer)
    request = MusicRequest("a cold horn plays", outputs=2, seed=5)
    composed = compose(model, request)
    with serving(model) as server:
        *music, (last, end) = stream(server, prompt="a cold horn plays", n=2, seed=5)
    assert last == "done"
    assert 0 <= end["timings"]["queued"] <= end["timings"]["first_note"] <= end["timings"]["total"]
    assert (end["model"], end["engine"]) == ("small", "jax")
    for output, expected in enumerate(composed.pieces):
        mine = [(name, data) for name, data in music if data["output"] == output]
        assert [name for name, _ in mine] == ["notes"] * (len(mine) - 1) + ["piece"]
        assert len(mine) > 2, "several bunches of notes"
        assert base64.b64decode(mine[-1][1]["midi"]) == expected.midi
        notes = np.array([note for _, data in mine[:-1] for note in data["notes"]])
        table = expected.table
        columns = [table.onsets / 100, table.durations / 100, table.notes // 128, table.notes % 128]
        assert sorted(notes.tolist()) == sorted(np.stack(columns, 1).tolist())


def test_what_is_left_out_is_as_generate_has_it() -> None:
    assert Music().request() == MusicRequest(None)
    assert Music(n=3, programs=[128]).request() == MusicRequest(None, outputs=3, programs=(128,))


WRONG: tuple[tuple[Any, int, str, str], ...] = (
    ({"temprature": 1}, 422, "invalid", "there is no field temprature; expected prompt, n, seed"),
    ({"n": 0}, 422, "invalid", "n: Input should be greater than or equal to 1"),
    ({"n": 5}, 422, "invalid", "n is 5; this server writes at most 4 pieces a request"),
    ({"seed": "3"}, 422, "invalid", "seed: "),
    ({"seed": -1}, 422, "invalid", "seed is -1"),
    ({"max_notes": 10**12}, 422, "invalid", "max_notes is 1000000000000"),
    ({"top_p": 1e-50}, 422, "invalid", "top_p is 1e-50"),
    ({"programs": [200]}, 422, "invalid", "programs holds 200"),
    ({"prompt": "x" * 1501}, 422, "invalid", "the prompt has 1501 letters; this server reads at most 1500"),
    ({"prompt": "drum " * 300}, 400, "unfit", "a sequence of this model holds 440"),
    ({"prompt": "x" * 5000}, 413, "too_large", "the body has more than 4096 bytes"),
    ('{"prompt": "\\ud83c"}', 422, "invalid", "half of a pair"),
    ('{"temperature": NaN}', 422, "invalid", "temperature is nan"),
    ('{"n": ', 422, "invalid", "the body is not JSON: Expecting value"),
    ("[1]", 422, "invalid", "the body is no JSON object"),
)


def test_what_cannot_be_written_is_refused_with_a_sentence(server: Served) -> None:
    for body, status, reason, said in WRONG:
        before = server.metric("midillm_rejects_total", reason=reason)
        content = body if isinstance(body, str) else json.dumps(body)
        answer = server.client.post("/v1/music", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (body, answer.text)
        assert set(answer.json()) == {"detail"}
        assert said in answer.json()["detail"]
        assert server.metric("midillm_rejects_total", reason=reason) == before + 1
    assert server.engine.empty()


def test_a_body_of_untold_length_is_bounded_too(server: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    answer = server.client.post("/v1/music", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_pages_of_other_sites_cannot_ask(server: Served) -> None:
    """Browsers send a form or plain text across sites without asking first; JSON they do not."""
    answer = server.client.post("/v1/music", content='{"n": 1}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert "access-control-allow-origin" not in answer.headers


def hold(server: Served, **fields: Any) -> socket.socket:
    """A request on a connection of its own, which the engine has but does not go on with."""
    server.engine.allow(0)
    body = json.dumps(fields).encode()
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    head = (
        f"POST /v1/music HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    wait_until(lambda: not server.engine.empty(), "the engine has the request")
    return connection


def test_a_full_queue_is_429_with_retry_after_until_there_is_room(server: Served) -> None:
    with hold(server, n=4):
        answer = server.post(n=1)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["detail"].startswith("4 pieces wait, and 4 may")
        assert server.metric("midillm_rejects_total", reason="busy") == 1
        server.engine.allow(math.inf)
        wait_until(lambda: server.metric("midillm_requests_total", outcome="done") == 1, "it is answered")
    assert server.post(n=1, max_notes=3).status_code == 200


def test_a_client_that_goes_frees_its_slot(server: Served) -> None:
    with hold(server, n=2):
        assert server.metric("midillm_sequences_waiting") == 2
    wait_until(lambda: server.metric("midillm_requests_total", outcome="cancelled") == 1, "its going is seen")
    server.engine.allow(1)  # the step that the thread is in
    wait_until(lambda: server.metric("midillm_sequences_waiting") == 0, "its places are free")
    wait_until(server.engine.empty, "the engine forgets it")
    server.engine.allow(math.inf)
    assert server.metric("midillm_tokens_total") == 0
    assert server.post(max_notes=3).status_code == 200


def test_a_stream_that_is_closed_frees_its_slot(server: Served) -> None:
    server.engine.allow(2)  # a prefill and a triple
    body = {"prompt": "a lute", "stream": True, "seed": 3}
    with server.client.stream("POST", "/v1/music", json=body) as response:
        name, data = next(events(response))
        assert (name, len(data["notes"])) == ("notes", 1)
        assert server.metric("midillm_sequences_running") == 1
    wait_until(lambda: server.metric("midillm_requests_total", outcome="cancelled") == 1, "its going is seen")
    server.engine.allow(1)
    wait_until(lambda: server.metric("midillm_sequences_running") == 0, "its place is free")
    wait_until(server.engine.empty, "the engine forgets it")
    assert server.metric("midillm_tokens_total") <= 6


def test_a_request_that_takes_too_long_is_given_up(tokenizer: Tokenizer) -> None:
    with serving(make_model(tokenizer), seconds=2) as server:
        server.engine.allow(0)
        answer = server.post(n=2)
        assert answer.status_code == 504
        assert answer.json()["detail"].startswith("not done after 2 seconds")
        assert server.metric("midillm_requests_total", outcome="timeout") == 1
        server.engine.allow(1)
        wait_until(lambda: server.metric("midillm_sequences_waiting") == 0, "its places are free")
        server.engine.allow(0)
        *_, (name, data) = stream_after_taken(server)
        assert (name, data["status"]) == ("error", 504)
        wait_until(lambda: server.metric("midillm_requests_total", outcome="timeout") == 2, "it is counted")


def stream_after_taken(server: Served) -> Events:
    """A stream whose request the engine has when it goes no further."""
    server.engine.allow(1)  # the step that the thread may still be in, so that it takes in what has come
    return stream(server)


def test_a_quiet_stream_is_kept_alive(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE_SECONDS", 0.05)
    server.engine.allow(0)
    with server.client.stream("POST", "/v1/music", json={"stream": True, "max_notes": 3}) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines), next(lines)] == [": nothing new", "", ": nothing new"]
        server.engine.allow(math.inf)
        assert "event: done" in list(lines)


def test_an_engine_that_breaks_is_500_and_then_503(tokenizer: Tokenizer) -> None:
    with serving(make_model(tokenizer, SteppedEngine(scale=float("nan")))) as server:
        assert server.client.get("/health").json() == {"status": "ok"}
        first = server.post()
        assert first.status_code == 500
        assert "numbers that are not finite" in first.json()["detail"]
        assert server.metric("midillm_requests_total", outcome="failed") == 1
        for answer in (server.client.get("/health"), server.post()):
            assert answer.status_code == 503
            assert "not finite" in answer.json()["detail"]
        assert server.metric("midillm_rejects_total", reason="unavailable") == 1


def test_a_stream_ends_with_the_error(tokenizer: Tokenizer) -> None:
    with serving(make_model(tokenizer, SteppedEngine(scale=float("nan")))) as server:
        ((name, data),) = stream(server)
        assert (name, data["status"]) == ("error", 500)
        assert "not finite" in data["detail"]


class OffKey(SteppedEngine):
    """Leaves the grammar: the last triple comes first."""

    def step(self, tell: Callable[[Stage], None] = lambda stage: None) -> list[Written]:
        return [Written(part.key, part.amt_ids[::-1], part.done) for part in super().step(tell)]


def test_what_is_not_music_is_500_for_that_request(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with serving(make_model(tokenizer, OffKey())) as server:
        answer = server.post(max_notes=3)
        assert answer.status_code == 500
        assert "not music" in answer.json()["detail"]
        assert server.metric("midillm_requests_total", outcome="failed") == 1
        assert server.client.get("/health").status_code == 200
    assert "outside the grammar" in caplog.text


def test_the_model_and_the_api_describe_themselves(server: Served) -> None:
    models = server.client.get("/v1/models").json()
    assert [(each["id"], each["engine"]) for each in models["data"]] == [("small", "jax")]
    assert server.client.get("/docs").status_code == 200
    described = server.client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/v1/music", "/health", "/metrics", "/v1/models"}
    assert {"200", "400", "413", "422", "429", "500", "503", "504"} <= set(
        described["paths"]["/v1/music"]["post"]["responses"]
    )
    fields = described["components"]["schemas"]["Music"]["properties"]
    assert all(field["description"] for field in fields.values())
