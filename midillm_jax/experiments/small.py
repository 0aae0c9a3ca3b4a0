"""What the experiments at demo size share: real pieces and music text, a model of 3.8 M parameters, its two stages.

The data are those of docs/results.md (all of the corpus but one collection), the recipes those of
configs/corpus_stage1.py and corpus_stage2.py with the fields below changed: width 64, rows of 256 tokens, steps of
1,024 tokens, the learning rate that was best at this width (docs/training.md).
"""

from midillm_jax.experiments.plan import Step

Fields = dict[str, object]
STEPS = 80
"""Of a stage."""
LEARNING_RATE = 1.6e-2

_TOKENIZER = "{data}/text2000.model"
PREPARE: tuple[Step, ...] = (
    ("prepare", "caption", "--input", "{midi}", "--manifest", "{midi}/MANIFEST.tsv", "--exclude", "pop909", "--out",
     "{data}/captions.jsonl"),
    ("prepare", "pairs", "--input", "{data}/captions.jsonl", "--out", "{data}/pairs"),
    ("prepare", "tokenizer", "--input", "{text}", "--exclude", "*_BYSA*", "--vocab-size", "2000", "--out", _TOKENIZER),
    ("prepare", "text", "--input", "{text}", "--exclude", "*_BYSA*", "--tokenizer", _TOKENIZER, "--out",
     "{data}/text"),
)  # fmt: skip
"""Captions, captioned pieces, a vocabulary of 2,000 and music text."""

_MODEL: Fields = {
    "model.text-vocab-size": 2000,
    "model.d-model": 64,
    "model.num-heads": 2,
    "model.num-kv-heads": 1,
    "model.d-ff": 192,
    "model.init-std": 0.1,
    "data.tokenizer": _TOKENIZER,
    "data.row-length": 256,
    "data.streams": 1,
}
_RUN: Fields = {
    "seed": "{seed}",
    "optimizer.learning-rate": LEARNING_RATE,
    "optimizer.warmup-steps": 10,
    "eval.batches": 6,
    "checkpoint.every-steps": 100_000,
}


def train(config: str, run: str, fields: Fields) -> Step:
    """``train`` of a config with fields changed."""
    options = tuple(f"--{name}={value}" for name, value in {"run-dir": run, **fields}.items())
    return ("train", "--config", config, *options)


def stage1(run: str, steps: int = STEPS, fields: Fields | None = None) -> Step:
    """A row of text and three of music a step, captions not shown."""
    rows: Fields = {"data.music-rows": 3, "data.text-rows": 1, "data.text.0.path": "{data}/text"}
    return _stage("corpus_stage1.py", run, steps, {**rows, **(fields or {})})


def stage2(run: str, init_from: str, steps: int = STEPS, fields: Fields | None = None) -> Step:
    """Four rows of captioned pieces a step; ``init_from`` empty for fresh weights."""
    rows: Fields = {"data.music-rows": 4, "data.text-rows": 0, "init-from": init_from}
    return _stage("corpus_stage2.py", run, steps, {**rows, **(fields or {})})


def _stage(config: str, run: str, steps: int, fields: Fields) -> Step:
    own: Fields = {"steps": steps, "eval.every-steps": max(1, steps // 4), "data.music.0.path": "{data}/pairs"}
    return train(config, run, {**_MODEL, **_RUN, **own, **fields})
