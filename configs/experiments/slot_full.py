"""Softmax over the rows of a slot against softmax over the whole table, at equal tokens and at equal compute.

    python -m midillm_jax.experiment --config experiments/slot_full.py --midi MIDI --text TEXT

Stage 2 from fresh weights on captioned pieces. By counted FLOPs a step of this shape costs 2.7 times as much with the
full softmax, so ``full_same_compute`` has 30 of the 80 steps. All models are scored alike, under the grammar, and what
each writes on an engine without one is drawn. 2 CPU cores that much other work shared: seven to twelve minutes an arm
and seed. At 1B: configs/stage2.py, where the factor is 1.23.
"""

from midillm_jax.experiments import large, small
from midillm_jax.experiments.plan import Arm, Experiment, Figure, Reported, Size, Step

FOUND = "{run}/without.json"


def scores(data: str, pieces: int) -> tuple[Step, ...]:
    """Export, bits a note under the grammar, and what comes without it."""
    model = "{run}/model"
    return (
        ("export", "--checkpoint", "{run}/train", "--out", model),
        ("benchmarks/without_grammar.py", model, "--data", data, "--pieces", str(pieces), "--json", FOUND),
    )


def get_experiment(size: Size) -> Experiment:
    if size == "demo":
        prepare, data, pieces = small.PREPARE, "{data}/pairs", 48
        steps, fewer = small.STEPS, 30

        def trained(kind: str, steps: int) -> Step:
            return small.stage2("{run}/train", "", steps, {"loss.kind": kind})

    else:
        prepare, data, pieces = (), large.PAIRS, 896
        steps, fewer = large.STAGE_2_STEPS, round(large.STAGE_2_STEPS / 1.23)

        def trained(kind: str, steps: int) -> Step:
            return large.stage2("{run}/train", steps=steps, fields={"loss.kind": kind})

    arms = (
        Arm("full", f"full softmax, {steps:,} steps", (trained("full", steps), *scores(data, pieces))),
        Arm("slot", f"slot softmax, {steps:,} steps", (trained("slot", steps), *scores(data, pieces))),
        Arm(
            "full_same_compute",
            f"full softmax, {fewer:,} steps, the FLOPs of slot's",
            (trained("full", fewer), *scores(data, pieces)),
        ),
    )
    return Experiment(
        name="slot_full",
        question="Is the slot softmax as good as the full one, and what does a model trained so do without a grammar?",
        prepare=prepare,
        arms=arms,
        baseline="slot",
        figures=(
            Figure("bits", "bits a note under the grammar", Reported(FOUND, "bits")),
            Figure("share", "probability within the slot", Reported(FOUND, "slot_share"), "higher"),
            Figure("triples", "valid triples without grammar", Reported(FOUND, "valid_triples"), "higher"),
            Figure("pieces", "valid pieces without grammar", Reported(FOUND, "valid_pieces"), "higher"),
        ),
    )
