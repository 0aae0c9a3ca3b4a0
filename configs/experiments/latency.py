"""How long one waits for music: our own engine in two precisions, at SmolLM2's shape.

    python -m midillm_jax.experiment --config experiments/latency.py

benchmarks/latency.py with random weights, one thread; each figure is the median over the requests of a run, and a seed
is a run. vLLM and llama.cpp live in environments of their own: docs/serving.md has their figures. Not run yet:
it wants a quiet machine. At 1B the same with the 1B shape.
"""

from midillm_jax.experiments.plan import Arm, Experiment, Figure, Reported, Size


def get_experiment(size: Size) -> Experiment:
    shape = "135m" if size == "demo" else "1b"
    waits = "{run}/latency.json"

    def arm(precision: str) -> Arm:
        engine = ("--shape", shape, "--engines", "jax", "--precisions", precision)
        asked = ("--batches", "1", "4", "--notes", "32", "--repeats", "2", "--out", waits)
        return Arm(precision, f"jax engine, {precision}", (("benchmarks/latency.py", *engine, *asked),))

    return Experiment(
        name="latency",
        question="How long does one wait for the first note and for 32, on one CPU thread?",
        arms=(arm("float32"), arm("bfloat16")),
        figures=(
            Figure("first", "s to the first note, one request", Reported(waits, "0.first.0")),
            Figure("whole", "s to 32 notes, one request", Reported(waits, "0.whole.0")),
            Figure("whole4", "s to 32 notes, four requests", Reported(waits, "1.whole.0")),
            Figure("speed", "tokens/s, four requests", Reported(waits, "1.tokens_per_second"), "higher", digits=1),
        ),
    )
