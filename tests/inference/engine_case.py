"""A trained demo model, requests, and what our own engine writes for them, for tests of other engines.

    python -m tests.inference.engine_case FOLDER

Run where jax is; the tests of an engine run where that engine is (``make test-vllm``). FOLDER gets
``model/``, ``int8/``, ``large/`` (the same untrained, whose context holds 2,100 tokens), ``gguf/`` and ``large-gguf/``
for llama.cpp, and ``case.json``. A folder that is whole already is left as it is.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.inference.request import TokenRequest
from midillm_jax.music import grammar_check
from midillm_jax.music.grammar import Limits

PROMPTS = (
    "A calm waltz in C major for flute, piano and electric bass, without drums.",
    "A fast rock song with drums, electric guitar and bass.",
    None,
)
STEPS = 120
"""Of stage 2, on 400 pieces: enough that the most likely id is well ahead of the next."""


def read(folder: Path) -> tuple[list[TokenRequest], list[list[int]]]:
    """The requests of a case, and the amt_ids that our sampler writes for each at temperature 0."""
    case: dict[str, Any] = json.loads((folder / "case.json").read_text())
    requests = []
    for fields in case["requests"]:
        limits = fields.pop("limits")
        limits["programs"] = limits["programs"] and tuple(limits["programs"])
        lists = {name: tuple(fields.pop(name)) for name in ("prompt", "history", "controls", "unprompted")}
        requests.append(TokenRequest(limits=Limits(**limits), **lists, **fields))
    return requests, case["greedy"]


def of_many_lengths(first: TokenRequest, count: int) -> list[TokenRequest]:
    """The same prompt with ever other seeds, lengths and limits, for engines in which requests join and leave."""
    return [
        dataclasses.replace(
            first,
            temperature=1.0,
            seed=number,
            max_triples=3 + number % 17,
            limits=Limits(programs=(number % 128,), max_notes=2 + number % 13),
        )
        for number in range(count)
    ]


def fault(request: TokenRequest, ids: np.ndarray) -> str | None:
    """What is wrong with what was written for a request, behind its history."""
    if not 0 < len(ids) // 3 <= request.max_triples:
        return f"{len(ids)} ids"
    sequence = np.concatenate((np.array(request.history, np.int32), ids))
    return grammar_check.check(sequence, request.limits, len(request.history))


def train(folder: Path) -> Path:
    from midillm_jax import export, prepare
    from midillm_jax import train as trainer

    band = folder / "band"
    prepare.main(["demo", "--out", str(band), "--pieces", "400", "--profile", "small"])
    tokenizer, pairs = str(folder / "tokenizer.model"), str(folder / "pairs")
    prepare.main(["tokenizer", "--input", str(band / "text"), "--vocab-size", "1024", "--out", tokenizer])
    prepare.main(["pairs", "--input", str(band), "--out", pairs])
    run = str(folder / "run")
    options = {
        "run-dir": run,
        "init-from": "",
        "steps": STEPS,
        "data.tokenizer": tokenizer,
        "data.music.0.path": pairs,
        "eval.every-steps": STEPS,
    }
    trainer.main(["--config", "demo_stage2.py", *(f"--{name}={value}" for name, value in options.items())])
    export.main(["--checkpoint", run, "--out", str(folder / "model")])
    export.main(["--checkpoint", run, "--out", str(folder / "int8"), "--dtype", "int8"])
    for dtype in ("float32", "q8_0"):
        out = folder / {"float32": "gguf", "q8_0": "gguf-q8"}[dtype]
        export.main(["--checkpoint", run, "--out", str(out), "--format", "gguf", "--dtype", dtype])
    return folder / "model"


def make_requests(model: Any, band: Path) -> list[TokenRequest]:
    """New music, with and without limits; music that goes on; music around what is given."""
    from midillm_jax.inference.compose import token_requests
    from midillm_jax.inference.request import MusicRequest
    from midillm_jax.music.amt import encode_midi
    from midillm_jax.music.vocab import ANTICIPATE, CONTROL_OFFSET

    def new(prompt: str | None, **fields: Any) -> TokenRequest:
        return token_requests(model, MusicRequest(prompt, temperature=0.0, **fields))[0]

    found = [new(prompt, max_notes=40) for prompt in PROMPTS]
    found.append(new(PROMPTS[1], max_seconds=4.0, programs=(25, 33, 128)))
    piece = encode_midi(sorted((band / "midi").glob("*.mid"))[0].read_bytes())
    going_on = new(PROMPTS[0], max_notes=40)
    found.append(dataclasses.replace(going_on, history=tuple(piece[:30].tolist()), max_triples=40))
    given = tuple((piece.reshape(-1, 3)[::3] + CONTROL_OFFSET).reshape(-1).tolist())
    flag = model.tokenizer.vocab_size + ANTICIPATE
    around = dataclasses.replace(going_on, prompt=(*going_on.prompt[:-1], flag), controls=given, max_triples=60)
    found.append(around)
    # Music that goes on among what is given: the controls that are due in what was written already stand there.
    started = tuple(model.engine.generate([around])[0][:36].tolist())
    found.append(dataclasses.replace(around, history=started, max_triples=40))
    # A place that begins later, as where bars are filled in.
    begin = int(piece[27]) + 150
    later = dataclasses.replace(going_on.limits, start_ticks=begin, end_ticks=begin + 400, closes=False)
    found.append(dataclasses.replace(found[4], limits=later))
    return found


def make_large(folder: Path, model: Path) -> None:
    """The trained model's shape with a longer context and weights that were never trained."""
    import jax

    from midillm_jax.model import gguf, hf, hf_write
    from midillm_jax.model.llama import INFERENCE, Definition
    from midillm_jax.text.tokenizer import load_tokenizer

    config = dataclasses.replace(hf.read_hf(model)[0], context_length=2112)
    params = Definition(config, INFERENCE).init(jax.random.key(0))
    hf_write.write_hf(folder / "large", config, params, load_tokenizer(model))
    gguf.write_gguf(folder / "large-gguf", config, params, load_tokenizer(model))


def main(folder: Path) -> None:
    from midillm_jax.inference.compose import load_model

    if (folder / "case.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    exported = train(folder)
    make_large(folder, exported)
    model = load_model(exported)
    requests = make_requests(model, folder / "band")
    written = model.engine.generate(requests)
    case = {
        "requests": [dataclasses.asdict(request) for request in requests],
        "greedy": [ids.tolist() for ids in written],
    }
    (folder / "case.json.partial").write_text(json.dumps(case))
    os.replace(folder / "case.json.partial", folder / "case.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
