"""How the 55,030 new rows begin: first loss, curve, and how long the rows grow.

    python -m midillm_jax.experiment --config experiments/init.py --midi MIDI --text TEXT --base BASE

SmolLM2-135M (launch/smollm2.py makes its folder), 20,480 tokens an arm, one seed. Not run yet.
First losses without training, full softmax included, are in docs/training.md (benchmarks/music_init.py). At 1B:
configs/stage1.py.
"""

from midillm_jax.experiments import large, pretrained
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Reported, Size

WAYS = {
    "mean_covariance": "mean and covariance of the text rows",
    "mean": "their mean",
    "normal": "their deviation, mean 0",
    "zero": "zeros",
}


def get_experiment(size: Size) -> Experiment:
    stage1 = pretrained.stage1 if size == "demo" else large.stage1
    run, norms = "{run}/train", "{run}/norms.json"
    arms = tuple(
        Arm(
            name,
            words,
            (stage1(run, fields={"music-init": name}), ("benchmarks/row_norms.py", run, "--json", norms)),
        )
        for name, words in WAYS.items()
    )
    return Experiment(
        name="init",
        question="Which beginning of the music rows trains best, and how do the rows grow?",
        prepare=pretrained.PREPARE if size == "demo" else (),
        arms=arms,
        seeds=(0,) if size == "demo" else (0, 1, 2),
        figures=(
            Figure("first", "bits a note, first 5 steps", Logged(run, "bits_per_note", "first", "train")),
            Figure("bits", "bits a note, held out, last", Logged(run, "bits_per_note")),
            Figure("drift", "drift, KL in nats", Logged(run, "text_drift"), better=""),
            Figure("before", "music row length at first", Reported(norms, "music_before"), better=""),
            Figure("after", "at the end", Reported(norms, "music_after"), better=""),
            Figure("text_rows", "text row length at the end", Reported(norms, "text_after"), better=""),
        ),
        curves=(Curve("bits a note in training", "bits_per_note", kind="train"),),
    )
