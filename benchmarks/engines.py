"""What leaves an engine: is all of it music? Thousands of pieces from one model, each held to the grammar.

    python benchmarks/engines.py MODEL --backend jax                       # 10,000 pieces of 30 triples
    python benchmarks/engines.py MODEL --backend vllm --pieces 100 --triples 682

MODEL is best one that was never trained, whose every id is about as likely as the next: ``--make MODEL`` writes one of
the demo's shape (8 M parameters) with a context of 2,112 tokens, and MODEL-gguf for llama.cpp, where jax is. Half of
the requests carry limits (programs, an end) or controls. Each piece has to keep to the grammar by the words of
``grammar_check``, which shares no code with the masks, to decode to notes, and to have its onsets in order. Prints one
line; exits 1 if any piece fails.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

from midillm_jax.inference.compose import load_model
from midillm_jax.inference.request import TokenRequest
from midillm_jax.music import grammar, grammar_check
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.vocab import AUTOREGRESS, CONTROL_OFFSET, DURATION_OFFSET, NOTE_OFFSET

PART = 500
"""Requests handed to the engine at a time."""


def make(folder: Path) -> None:
    """A folder with random weights and a tokenizer of the band's captions."""
    import dataclasses
    import tempfile

    import jax

    from midillm_jax.data.demo import write_band
    from midillm_jax.model import gguf, hf_write
    from midillm_jax.model.llama import INFERENCE, Definition
    from midillm_jax.presets import DEMO
    from midillm_jax.text.tokenizer import train_sentencepiece

    config = dataclasses.replace(DEMO, context_length=2112)
    with tempfile.TemporaryDirectory() as work:
        write_band(Path(work) / "band", 200, seed=0)
        texts = [path.read_text() for path in sorted((Path(work) / "band" / "text").iterdir())]
        tokenizer = train_sentencepiece(texts, Path(work) / "tokenizer.model", config.text_vocab_size)
        params = Definition(config, INFERENCE).init(jax.random.key(0))
        hf_write.write_hf(folder, config, params, tokenizer)
        gguf.write_gguf(folder.with_name(f"{folder.name}-gguf"), config, params, tokenizer)


def requests(text_vocab_size: int, pieces: int, triples: int) -> list[TokenRequest]:
    """Without limits; with programs and an end; with an end and without closing; around controls: in turn."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(pieces):
        kind = number % 8 if number % 2 else 0
        limits, controls = grammar.Limits(), []
        if kind in (1, 5):
            programs = tuple(sorted(rng.choice(129, 3, replace=False).tolist()))
            limits = grammar.Limits(programs=programs, end_ticks=int(rng.integers(50, 9000)), closes=kind == 1)
        if kind in (3, 7):
            onsets = sorted(rng.integers(0, 9000, triples // 3 + 1).tolist())
            notes = rng.integers(0, 16_512, len(onsets)).tolist()
            for onset, note in zip(onsets, notes, strict=True):
                controls += [onset, DURATION_OFFSET + onset % 1000, NOTE_OFFSET + note]
        found.append(
            TokenRequest(
                prompt=(1, 2 + number % 900, text_vocab_size + AUTOREGRESS),
                limits=limits,
                max_triples=triples,
                temperature=1.0,
                top_p=0.98,
                seed=number,
                controls=tuple(CONTROL_OFFSET + amt_id for amt_id in controls),
            )
        )
    return found


def fault(ids: np.ndarray, request: TokenRequest) -> str | None:
    """What is wrong with a piece, or None."""
    if len(ids) == 0 or len(ids) % 3 or len(ids) // 3 > request.max_triples:
        return f"{len(ids)} ids"
    if (wrong := grammar_check.check(ids, request.limits)) is not None:
        return wrong.partition(": ")[2]
    onsets = decode_notes(ids).onsets
    return None if (np.diff(onsets) >= 0).all() else "onsets step back"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--make", action="store_true", help="write the model first")
    parser.add_argument("--backend", default="jax", choices=["jax", "vllm", "llamacpp"])
    parser.add_argument("--pieces", type=int, default=10_000)
    parser.add_argument("--triples", type=int, default=30)
    options = parser.parse_args()
    if options.make:
        make(options.model)
    engine = load_model(options.model, options.backend).engine
    wanted = requests(engine.text_vocab_size, options.pieces, options.triples)
    faults: collections.Counter[str] = collections.Counter()
    tokens, cpu, began = 0, time.process_time(), time.perf_counter()
    for start in range(0, len(wanted), PART):
        part = wanted[start : start + PART]
        for request, ids in zip(part, engine.generate(part), strict=True):
            tokens += len(ids)
            if (wrong := fault(ids, request)) is not None:
                faults[wrong] += 1
        print(f"\r{start + len(part):,} of {len(wanted):,} pieces ", end="", file=sys.stderr, flush=True)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    print(file=sys.stderr)
    good = len(wanted) - sum(faults.values())
    print(
        f"{engine.name}: {good:,} of {len(wanted):,} pieces are music; {tokens:,} tokens in {seconds:.0f} s, "
        f"{tokens / used:,.0f} a CPU second"
    )
    for wrong, count in faults.most_common(10):
        print(f"  {count:,} x {wrong}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
