"""Does text move new music and infilling, at guidance 1 to 5, and does saying it twice?

    python -m midillm_jax.experiment --config experiments/guidance_infill.py --midi MIDI

The model that comes with the package, on held-out pieces: the prompt names an instrument that the piece lacks, or one
that it has (benchmarks/prompted.py). Not run yet: one piece of one arm took 28
CPU seconds, most of it compiling. At 1B: configs/stage2.py with a tenth of the captions dropped and with none, and the
whole grid.
"""

from midillm_jax.experiments import large, small
from midillm_jax.experiments.plan import Arm, Experiment, Figure, Reported, Size, Step

GUIDANCE = (1, 2, 3, 5)


def trained(dropout: float) -> tuple[Step, ...]:
    """A stage 2 that drops that share of captions, and its export."""
    folder = f"{{data}}/dropout_{dropout:g}"
    stage2 = large.stage2(f"{folder}/train", fields={"data.caption-dropout": dropout, "seed": 0})
    return (stage2, ("export", "--checkpoint", f"{folder}/train", "--out", f"{folder}/model"))


def get_experiment(size: Size) -> Experiment:
    found = "{run}/prompted.json"
    data = "{data}/pairs" if size == "demo" else large.PAIRS
    asked = ("benchmarks/prompted.py", "--data", data, "--seed", "{seed}", "--json", found)

    def arm(kind: str, guidance: int, twice: bool = False, dropout: float | None = None) -> Arm:
        words = f"{'infilling' if kind == 'infill' else 'new music'}, guidance {guidance}"
        options = ("--kind", kind, "--guidance", str(guidance))
        if twice:
            words, options = f"{words}, prompt twice", (*options, "--twice")
        if dropout is not None:
            words = f"{words}, captions dropped {dropout:g}"
            options = (*options, "--model", f"{{data}}/dropout_{dropout:g}/model", "--pieces", "200")
        name = f"{kind}_{guidance}" + ("_twice" if twice else "") + ("" if dropout is None else f"_{dropout:g}")
        return Arm(name.replace(".", "_"), words, ((*asked, *options),))

    prepare: tuple[Step, ...]
    if size == "demo":
        prepare = small.PREPARE[:2]
        arms = [arm("new", 1), arm("new", 3), *(arm("infill", g) for g in GUIDANCE), arm("infill", 1, twice=True)]
        baseline = "infill_1"
    else:
        prepare = (*trained(0.1), *trained(0.0))
        arms = [arm(kind, g, dropout=dropout) for dropout in (0.1, 0.0) for kind in ("new", "infill") for g in GUIDANCE]
        baseline = "infill_1_0_1"
    return Experiment(
        name="guidance_infill",
        question="Does text move new music and infilling, and does guidance or saying it twice help?",
        prepare=prepare,
        arms=tuple(arms),
        baseline=baseline,
        figures=(
            Figure("moved", "share of notes moved by the prompt", Reported(found, "moved"), "higher"),
            Figure("asked", "asked-for instrument's share", Reported(found, "asked"), better=""),
            Figure("not_asked", "where it is not asked for", Reported(found, "not_asked"), better=""),
        ),
    )
