"""The base's text rows frozen, slowed or free in stage 1: what becomes of text and of music?

    python -m midillm_jax.experiment --config experiments/frozen_text.py --midi MIDI --text TEXT --base BASE

SmolLM2-135M (launch/smollm2.py makes its folder), 20,480 tokens an arm, one seed. Not run yet.
``drift`` is the KL divergence of the base's next-token distribution from the trained model's on held-out text. At 1B:
configs/stage1.py.
"""

from midillm_jax.experiments import large, pretrained
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Size

SHARES = {
    "all_rows": ("text rows learn as fast as all else", 1.0),
    "slowed": ("text rows at a tenth of the rate", 0.1),
    "frozen": ("text rows frozen", 0.0),
}


def get_experiment(size: Size) -> Experiment:
    stage1 = pretrained.stage1 if size == "demo" else large.stage1
    run = "{run}/train"
    arms = tuple(
        Arm(name, words, (stage1(run, fields={"optimizer.text-rows-learning-rate-share": share}),))
        for name, (words, share) in SHARES.items()
    )
    return Experiment(
        name="frozen_text",
        question="Does freezing or slowing the old text rows keep the language, and what does it cost the music?",
        prepare=pretrained.PREPARE if size == "demo" else (),
        arms=arms,
        seeds=(0,) if size == "demo" else (0, 1, 2),
        figures=(
            Figure("drift", "drift, KL in nats", Logged(run, "text_drift"), better=""),
            Figure("text", "nats a text token, held out", Logged(run, "text_loss")),
            Figure("bits", "bits a note, held out", Logged(run, "bits_per_note")),
        ),
        curves=(
            Curve("drift, KL in nats", "text_drift"),
            Curve("nats a text token, held out", "text_loss"),
            Curve("bits a note, held out", "bits_per_note"),
        ),
    )
