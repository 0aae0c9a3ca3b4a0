"""vLLM's real engine, in process and as a server: `make test-vllm` runs this file in an environment of vLLM's own.

MIDILLM_ENGINE_CASE names the folder that engine_case.py made where jax is.
"""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import compose, load_model
from midillm_jax.inference.engine import Progress
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.music import grammar_check
from midillm_jax.music.vocab import SEPARATOR
from tests.inference import engine_case

transformers = pytest.importorskip("transformers", reason="vLLM is not installed")
vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
import torch  # noqa: E402

from midillm_jax.inference import vllm_grammar  # noqa: E402 (needs vLLM)
from midillm_jax.inference.vllm import VllmEngine  # noqa: E402

Case = tuple[list[TokenRequest], list[list[int]]]
"""Requests, and the amt_ids that our sampler writes for them at temperature 0."""

pytestmark = pytest.mark.slow

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ["MIDILLM_ENGINE_CASE"])


@pytest.fixture(scope="module")
def case(folder: Path) -> Case:
    return engine_case.read(folder)


@pytest.fixture(scope="module")
def free(folder: Path, case: Case) -> list[int]:
    """Token ids that transformers writes for the first request, without a grammar."""
    return written_by_transformers(folder / "model", case[0][0].prompt, 60)


def written_by_transformers(model: Path, prompt: tuple[int, ...], count: int) -> list[int]:
    """What transformers writes without a grammar, token ids."""
    network = transformers.LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        written = network.generate(
            ids, do_sample=False, max_new_tokens=count, min_new_tokens=count, top_p=None, temperature=None
        )
    return [int(token) for token in written[0, len(prompt) :]]


@pytest.fixture(scope="module")
def engine(folder: Path) -> VllmEngine:
    os.environ.update(ENVIRONMENT)
    return VllmEngine(folder / "model", dtype="float32")


def test_nothing_of_jax_was_imported(engine: VllmEngine) -> None:
    assert engine.text_vocab_size == 1024
    assert "jax" not in sys.modules


def test_greedy_ids_are_those_of_our_sampler(engine: VllmEngine, case: Case) -> None:
    requests, recorded = case
    for ids, expected in zip(engine.generate(requests), recorded, strict=True):
        assert ids.tolist() == expected


def test_without_the_grammar_greedy_ids_are_those_of_transformers(
    engine: VllmEngine, case: Case, free: list[int]
) -> None:
    parameters = vllm.SamplingParams(temperature=0.0, max_tokens=len(free), ignore_eos=True, detokenize=False)
    (answer,) = engine._llm.generate(
        {"prompt_token_ids": list(case[0][0].prompt)}, sampling_params=parameters, use_tqdm=False
    )
    assert list(answer.outputs[0].token_ids) == free


def test_samples_are_music_and_the_seed_decides_them(engine: VllmEngine, case: Case) -> None:
    sampled = [dataclasses.replace(request, temperature=1.0, seed=3) for request in case[0]]
    told: list[Progress] = []
    first = engine.generate(sampled, told.append)
    for ids, request in zip(first, sampled, strict=True):
        assert engine_case.fault(request, ids) is None
    assert [ids.tolist() for ids in engine.generate(sampled)] == [ids.tolist() for ids in first]
    others = engine.generate([dataclasses.replace(request, output=1) for request in sampled])
    assert all(one.tolist() != other.tolist() for one, other in zip(first, others, strict=True))
    assert told[0].stage == "prefill"
    assert [now.triples for now in told[:-1]] == sorted(now.triples for now in told[:-1])


def test_requests_that_join_and_leave_at_different_times_keep_their_own_limits(engine: VllmEngine, case: Case) -> None:
    """More requests than vLLM runs at a time here, each of another length: rows are given up, moved and taken over."""
    requests = engine_case.of_many_lengths(case[0][0], 300)
    for request, ids in zip(requests, engine.generate(requests), strict=True):
        assert engine_case.fault(request, ids) is None


def test_a_piece_comes_out_of_compose(folder: Path) -> None:
    composed = compose(load_model(folder / "model", "vllm"), MusicRequest("a waltz", outputs=2, max_notes=20))
    assert [1 <= len(piece.table) <= 20 for piece in composed.pieces] == [True, True]
    assert composed.seconds["decode"] > 0


def test_too_long_a_request_is_refused(engine: VllmEngine, case: Case) -> None:
    with pytest.raises(UserError, match=r"6\d\d\d tokens .* holds 512; ask for fewer notes"):
        engine.generate([dataclasses.replace(case[0][0], max_triples=2000)])


def nats(engine: VllmEngine, case: Case) -> float:
    """Of a music token that our sampler wrote, on average over the requests that are new."""
    parameters = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    found: list[float] = []
    for request, ids in zip(case[0][:3], case[1][:3], strict=True):
        prompt = [*request.prompt, *(amt_id + engine.text_vocab_size for amt_id in ids)]
        (answer,) = engine._llm.generate({"prompt_token_ids": prompt}, sampling_params=parameters, use_tqdm=False)
        given = zip(prompt, answer.prompt_logprobs, strict=True)
        found += [-logprobs[token].logprob for token, logprobs in list(given)[len(request.prompt) :]]
    return float(np.mean(found))


def test_an_int8_export_is_nearly_the_same_model(folder: Path, engine: VllmEngine, case: Case) -> None:
    rounded = VllmEngine(folder / "int8")
    assert rounded._llm.llm_engine.model_config.quantization == "compressed-tensors"
    assert 1e-5 < abs(nats(rounded, case) - nats(engine, case)) < 0.05
    sampled = [dataclasses.replace(request, temperature=1.0) for request in case[0]]
    for ids, request in zip(rounded.generate(sampled), sampled, strict=True):
        assert engine_case.fault(request, ids) is None


def test_fp8_on_a_cpu_is_refused_with_the_reason(folder: Path) -> None:
    with pytest.raises(UserError, match="fp8 needs a GPU"):
        VllmEngine(folder / "model", quantization="fp8")


def test_the_command_writes_midi_without_jax(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "music"
    command = [sys.executable, "-m", "midillm_jax.generate", "--model", str(folder / "model"), "--out", str(out)]
    command += ["--backend", "vllm", "--prompt", "a waltz for flute", "--max-notes", "12", "--outputs", "2"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted(out.glob("*.mid"))
    assert len(files) == 2
    for file in files:
        assert any(message.type == "note_on" for track in mido.MidiFile(file).tracks for message in track)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    command += ["--served-model-name", "music", "--skip-tokenizer-init", "--dtype", "float32", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        try:
            for _ in range(240):
                assert run.poll() is None, "the server ended"
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail("the server did not start within two minutes")
            yield f"http://127.0.0.1:{port}"
        finally:
            run.terminate()


def ask(server: str, prompt: tuple[int, ...], **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "music", "prompt": list(prompt), "return_token_ids": True} | fields
    request = urllib.request.Request(
        f"{server}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_stock_server_answers_with_and_without_the_grammar(server: str, case: Case, free: list[int]) -> None:
    requests, recorded = case
    first, around = requests[0], requests[5]
    status, answer = ask(server, first.prompt, max_tokens=60, temperature=0.0, ignore_eos=True)
    assert (status, answer["choices"][0]["token_ids"]) == (200, free)
    for request, expected in ((first, recorded[0]), (around, recorded[5])):
        argument = vllm_grammar.to_argument(request.limits, request.controls)
        status, answer = ask(
            server,
            request.prompt,
            max_tokens=3 * request.max_triples,
            temperature=0.0,
            stop_token_ids=[1024 + SEPARATOR],
            vllm_xargs={"midi_grammar": argument},
        )
        assert status == 200
        ids = [token - 1024 for token in answer["choices"][0]["token_ids"]]
        assert [*ids, SEPARATOR, SEPARATOR][: len(expected)] == expected
    status, answer = ask(server, first.prompt, max_tokens=30, temperature=1.0, n=4, vllm_xargs={"midi_grammar": 1})
    assert status == 200
    for choice in answer["choices"]:
        ids = [token - 1024 for token in choice["token_ids"]]
        assert grammar_check.check(ids[: len(ids) // 3 * 3]) is None


@pytest.mark.parametrize("argument", ["what", '{"pitch": 3}', '{"end_ticks": 0}', '{"controls": [1, 2, 3]}', 7])
def test_a_server_refuses_an_argument_that_it_cannot_use(server: str, case: Case, argument: Any) -> None:
    status, answer = ask(server, case[0][0].prompt, max_tokens=6, vllm_xargs={"midi_grammar": argument})
    assert (status, "midi_grammar: expected 1" in json.dumps(answer)) == (400, True)
    assert ask(server, case[0][0].prompt, max_tokens=6, vllm_xargs={"midi_grammar": 1})[0] == 200
