"""One short piece learned by heart: does what goes in through the grown vocabulary come out note for note?

    python -m midillm_jax.experiment --config experiments/overfit_one.py

A text model of 137 thousand parameters is trained on the small band's texts, grown by the 55,030 music rows and trained
on one captioned piece of 56 notes; then ``generate --temperature 0`` is asked for that caption. 2 CPU cores that much
other work shared: six minutes a seed. At 1B: the same piece into Llama-3.2-1B, eight rows a step.
"""

from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Reported, Size
from midillm_jax.experiments.small import train

CAPTION = "Flute, piano and electric bass play a blues tune with drums, in C major and 4/4 time."
PIECE = "{data}/two_pieces/midi/00001-blues.mid"
STEPS = 120

PREPARE = (
    ("prepare", "demo", "--out", "{data}/band40", "--pieces", "40", "--profile", "small"),
    ("prepare", "tokenizer", "--input", "{data}/band40", "--vocab-size", "600", "--out", "{data}/band600.model"),
    ("prepare", "text", "--input", "{data}/band40/text", "--tokenizer", "{data}/band600.model", "--out",
     "{data}/band40_text"),
    # Of two pieces the hash puts one into the train split, and the other is held out.
    ("prepare", "demo", "--out", "{data}/two_pieces", "--pieces", "2", "--profile", "small", "--seed", "0"),
    ("prepare", "pairs", "--input", "{data}/two_pieces", "--out", "{data}/one_piece", "--validation-share", "0.5"),
)  # fmt: skip

SHAPE = {
    "model.text-vocab-size": 600,
    "model.d-model": 64,
    "model.num-heads": 2,
    "model.num-kv-heads": 1,
    "model.num-layers": 2,
    "model.d-ff": 192,
    "model.init-std": 0.1,
    "data.tokenizer": "{data}/band600.model",
    "data.row-length": 384,
    "data.streams": 1,
    "seed": "{seed}",
    "checkpoint.every-steps": 100_000,
    "eval.batches": 1,
}


def get_experiment(size: Size) -> Experiment:
    base = "{run}/text_model"
    small = (
        train(
            "demo_stage1.py",
            base,
            SHAPE
            | {"model.music-vocab-size": 0, "data.music-rows": 0, "data.text-rows": 2, "steps": 30}
            | {"data.text.0.path": "{data}/band40_text", "eval.every-steps": 30},
        ),
        train(
            "demo_stage2.py",
            "{run}/train",
            SHAPE
            | {"init-from": base, "data.music.0.path": "{data}/one_piece", "data.music-rows": 1, "steps": STEPS}
            | {"data.caption-dropout": 0, "data.window-start": "piece", "eval.every-steps": STEPS // 5}
            | {"data.anticipation.spans": 0, "data.anticipation.random": 0, "data.anticipation.instruments": 0}
            | {"log-every-steps": 10, "optimizer.learning-rate": 1e-2, "optimizer.weight-decay": 0},
        ),
    )
    large = (
        train(
            "stage2.py",
            "{run}/train",
            {"init-from": "{base}", "data.tokenizer": "{base}", "data.music.0.path": "{data}/one_piece"}
            | {"data.music-rows": 8, "data.streams": 1, "data.workers": 0, "steps": 200, "seed": "{seed}"}
            | {"data.caption-dropout": 0, "data.window-start": "piece", "optimizer.warmup-steps": 20}
            | {"data.anticipation.spans": 0, "data.anticipation.random": 0, "data.anticipation.instruments": 0},
        ),
    )
    music = ("generate", "--model", "{run}/model", "--prompt", CAPTION, "--temperature", "0", "--out", "{run}/music")
    compared = ("benchmarks/same_notes.py", PIECE, "{run}/music", "--json", "{run}/same.json")
    export = ("export", "--checkpoint", "{run}/train", "--out", "{run}/model")
    return Experiment(
        name="overfit_one",
        question="Is one piece, learned by heart, given back note for note?",
        prepare=PREPARE if size == "demo" else PREPARE[3:],
        arms=(
            Arm("by_heart", "one piece of 56 notes", ((*small, export, music, compared) if size == "demo" else
                                                     (*large, export, music, compared))),
        ),
        figures=(
            Figure("same_notes", "notes given back, share", Reported("{run}/same.json", "share"), "higher"),
            Figure("extra_notes", "notes too many", Reported("{run}/same.json", "extra"), digits=0),
            Figure("first_bits", "bits a note, first 10 steps", Logged("{run}/train", "bits_per_note", "first",
                                                                       "train")),
            Figure("last_bits", "bits a note, last 10 steps", Logged("{run}/train", "bits_per_note", kind="train"),
                   digits=4),
        ),
        curves=(Curve("bits a note in training", "bits_per_note", kind="train"),),
    )  # fmt: skip
