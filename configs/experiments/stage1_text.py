"""Stage 1 with music text, with general text, or with none: is music text needed?

    python -m midillm_jax.experiment --config experiments/stage1_text.py --midi MIDI --text TEXT --base BASE --general G

SmolLM2-135M (launch/smollm2.py makes its folder) through a short stage 1 with a row of text and one of music a step, or
two of music; then stage 2 on captioned pieces. ``--general`` is a folder of text that is not on music. One seed, 20,480
tokens a stage. Not run yet. At 1B: configs/stage1.py and stage2.py.
"""

from midillm_jax.experiments import large, pretrained
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Size, Step


def get_experiment(size: Size) -> Experiment:
    one, two = "{run}/stage1", "{run}/train"
    general: Step = ("prepare", "text", "--input", "{general}", "--tokenizer", "{base}", "--out", "{data}/general")

    def both(fields: dict[str, object]) -> tuple[Step, ...]:
        if size == "1b":
            return (large.stage1(one, fields=fields), large.stage2(two, one))
        captioned = {"init-from": one, "data.caption-dropout": 0.1, "data.text-rows": 0, "data.music-rows": 2}
        return (pretrained.stage1(one, fields), pretrained.stage1(two, captioned))

    rows = {"data.music-rows": 128 if size == "1b" else 2, "data.text-rows": 0}
    return Experiment(
        name="stage1_text",
        question="Is music text needed in stage 1, would general text do, or none?",
        prepare=(*(pretrained.PREPARE if size == "demo" else ()), general),
        arms=(
            Arm("music_text", "text on music", both({})),
            Arm("general_text", "other text", both({"data.text.0.path": "{data}/general"})),
            Arm("no_text", "music alone, the same tokens", both(rows)),
        ),
        seeds=(0,) if size == "demo" else (0, 1, 2),
        figures=(Figure("bits", "bits a note after stage 2, held out", Logged(two, "bits_per_note")),),
        curves=(Curve("bits a note, held out", "bits_per_note", runs=(one, two)),),
    )
