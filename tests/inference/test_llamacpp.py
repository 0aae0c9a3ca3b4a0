"""llama.cpp's real engine: `make test-llamacpp` runs this file in an environment that has llama-cpp-python.

MIDILLM_ENGINE_CASE names the folder that engine_case.py made where jax is.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference import llamacpp
from midillm_jax.inference.compose import compose, load_model
from midillm_jax.inference.engine import Engine, Progress
from midillm_jax.inference.llamacpp import LlamaCppEngine
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.model.hf_folder import GGUF_FILE
from midillm_jax.music import grammar
from midillm_jax.text.tokenizer import load_tokenizer
from tests.inference import engine_case

Case = tuple[list[TokenRequest], list[list[int]]]
"""Requests, and the amt_ids that our sampler writes for them at temperature 0."""


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([0.05, 0.5, 0.0, 0.15, 0.3])
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities).astype(np.float32)
    generator = np.random.default_rng(0)
    for temperature, top_p, expected in (
        (1.0, 1.0, probabilities),
        (1.0, 0.81, np.array([0, 0.5, 0, 0.15, 0.3]) / 0.95),
        (1.0, 0.79, np.array([0, 0.5, 0, 0, 0.3]) / 0.8),
        (0.5, 1.0, probabilities**2 / (probabilities**2).sum()),
        (1.0, 1e-6, np.eye(5)[1]),
        (0.0, 1.0, np.eye(5)[1]),
    ):
        drawn = [llamacpp.draw(logits, generator, temperature, top_p) for _ in range(20_000)]
        share = np.bincount(drawn, minlength=5) / len(drawn)
        np.testing.assert_allclose(share, expected, atol=0.015)


def test_where_llama_cpp_is_not_installed_it_says_so(tmp_path: Path) -> None:
    code = "import sys; sys.modules['llama_cpp'] = None; from midillm_jax.inference.llamacpp import LlamaCppEngine as E"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\ntry: E('x.gguf')\nexcept Exception as error: print(type(error), error)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "UserError" in done.stdout
    assert "pip install llama-cpp-python" in done.stdout


# From here on with the library itself.


@pytest.fixture(scope="module")
def folder() -> Path:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    return Path(os.environ["MIDILLM_ENGINE_CASE"])


@pytest.fixture(scope="module")
def case(folder: Path) -> Case:
    return engine_case.read(folder)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LlamaCppEngine]:
    made = LlamaCppEngine(folder / "gguf" / GGUF_FILE, float32_cache=True, max_sequences=4, threads=1)
    yield made
    made.close()


@pytest.mark.slow
def test_nothing_of_jax_was_imported(folder: Path) -> None:
    code = (
        "import sys; from midillm_jax.inference.compose import *; "
        "model = load_model(sys.argv[1]); compose(model, MusicRequest('a waltz', max_notes=3)); "
        "print(model.engine.name, 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "gguf-q8")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["llamacpp", "False"]
    assert done.stderr == ""


@pytest.mark.slow
def test_greedy_ids_are_those_of_our_sampler(engine: LlamaCppEngine, case: Case) -> None:
    requests, recorded = case
    for ids, expected in zip(engine.generate(requests), recorded, strict=True):
        assert ids.tolist() == expected


@pytest.mark.slow
def test_samples_are_music_and_the_seed_decides_them(engine: LlamaCppEngine, case: Case) -> None:
    sampled = [dataclasses.replace(request, temperature=1.0, seed=3) for request in case[0]]
    told: list[Progress] = []
    first = engine.generate(sampled, told.append)
    for ids, request in zip(first, sampled, strict=True):
        assert engine_case.fault(request, ids) is None
    assert [ids.tolist() for ids in engine.generate(sampled)] == [ids.tolist() for ids in first]
    others = engine.generate([dataclasses.replace(request, output=1) for request in sampled])
    assert all(one.tolist() != other.tolist() for one, other in zip(first, others, strict=True))
    assert {now.stage for now in told} == {"prefill", "decode", "done"}


@pytest.mark.slow
def test_requests_that_join_and_leave_at_different_times_keep_their_own_limits(engine: Engine, case: Case) -> None:
    requests = engine_case.of_many_lengths(case[0][0], 60)
    for request, ids in zip(requests, engine.generate(requests), strict=True):
        assert engine_case.fault(request, ids) is None


@pytest.mark.slow
def test_a_dropped_request_gives_its_place_up(engine: LlamaCppEngine, case: Case) -> None:
    requests = [dataclasses.replace(case[0][0], limits=grammar.Limits(closes=False), max_triples=30)] * 6
    keys = [engine.add(request) for request in requests]
    engine.step()
    for key in keys[:4]:
        engine.drop(key)
    served = {written.key for written in engine.step()}
    assert served == set(keys[4:])
    for key in keys[4:]:
        engine.drop(key)
    assert engine.step() == []


@pytest.mark.slow
def test_the_grammar_serves_llama_cpps_own_interface(folder: Path, engine: LlamaCppEngine, case: Case) -> None:
    import llama_cpp

    network = llama_cpp.Llama(str(folder / "gguf" / GGUF_FILE), n_ctx=512, type_k=0, type_v=0, verbose=False)
    for request, expected in zip(*case, strict=True):
        prompt = request.token_ids(engine.text_vocab_size)
        mask = llamacpp.Grammar(prompt, engine.text_vocab_size, request.limits, request.controls)
        processors = llama_cpp.LogitsProcessorList([mask])
        written = []
        for token in network.generate(prompt, temp=0.0, repeat_penalty=1.0, logits_processor=processors):
            written.append(token - engine.text_vocab_size)
            if len(written) == len(expected):
                break
        assert written == expected
    network.close()


@pytest.mark.slow
def test_text_becomes_the_same_ids_in_the_file(folder: Path) -> None:
    import llama_cpp

    network = llama_cpp.Llama(str(folder / "gguf" / GGUF_FILE), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(folder / "gguf")
    for text in (
        *(prompt for prompt in engine_case.PROMPTS if prompt),
        "Ünïcödé ✓ 東京\n\n  two  spaces",
        "<|onset:3|>",
    ):
        assert network.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)
        assert network.tokenize(text.encode(), special=False)[0] == tokenizer.bos_id
    separator = network.tokenize(b"<|separator|>", add_bos=False, special=True)
    assert separator == [tokenizer.vocab_size + 55_025]


@pytest.mark.slow
def test_a_piece_comes_out_of_the_command(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "midillm_jax.generate", "--model", str(folder / "gguf-q8"), "--prompt", "a waltz"]
    done = subprocess.run(
        [*command, "--max-notes", "20", "--out", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    (file,) = (tmp_path / "out").glob("*.mid")
    notes = [message for message in mido.MidiFile(file) if message.type == "note_on" and message.velocity]
    assert 1 <= len(notes) <= 20
    assert f"{len(notes)} notes" in done.stdout


@pytest.mark.slow
def test_outputs_of_one_prompt_differ(folder: Path) -> None:
    composed = compose(load_model(folder / "gguf-q8"), MusicRequest("a waltz", outputs=3, max_notes=20))
    assert len({piece.midi for piece in composed.pieces}) == 3


@pytest.mark.slow
def test_what_cannot_run_is_refused_with_the_reason(folder: Path, case: Case, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model\.gguf.*--format gguf"):
        load_model(folder / "model", "llamacpp")
    broken = tmp_path / "broken"
    shutil.copytree(folder / "gguf-q8", broken)
    whole = (broken / GGUF_FILE).read_bytes()
    (broken / GGUF_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"llama\.cpp does not load this file: .*export it again"):
        load_model(broken)
    with pytest.raises(UserError, match=r"tokens .* holds 512; ask for fewer notes"):
        LlamaCppEngine(folder / "gguf-q8" / GGUF_FILE).add(dataclasses.replace(case[0][0], max_triples=2000))
