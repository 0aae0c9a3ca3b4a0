"""Stage 2 alone, and a stage 1 whose MIDI is damaged: what does each stage, and clean data, bring?

    python -m midillm_jax.experiment --config experiments/sft_only.py --midi MIDI --text TEXT

``two_stages`` is both recipes; ``sft_only`` its stage 2 from fresh weights, ``sft_longer`` with the tokens of both
stages. ``damaged`` reads in stage 1 the same pieces, a tenth of which benchmarks/damage.py has spoilt in ways that
still are MIDI, ``damaged_filtered`` those of them that pass the filters of the paper's recipe, and ``clean_filtered``
the clean pieces that pass, since filters leave out good pieces too. 2 CPU cores that much
other work shared: six minutes an arm and seed. At 1B: configs/stage1.py and stage2.py; the three folders of stage 1,
``data/damaged`` and so on, are made beforehand from its unpacked files by the commands of the demo size.
"""

from midillm_jax.experiments import large, small
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Size, Step

FILTERS = ("--filters.min-notes", "100", "--filters.min-seconds", "10", "--filters.max-seconds", "3600",
           "--filters.max-programs", "16")  # fmt: skip
DAMAGE: tuple[Step, ...] = (
    ("benchmarks/damage.py", "{data}/captions.jsonl", "--out", "{data}/damaged_midi", "--share", "0.1"),
    ("prepare", "pairs", "--input", "{data}/damaged_midi", "--out", "{data}/damaged"),
    ("prepare", "pairs", "--input", "{data}/damaged_midi", "--out", "{data}/damaged_filtered", *FILTERS),
    ("prepare", "pairs", "--input", "{data}/captions.jsonl", "--out", "{data}/clean_filtered", *FILTERS),
)
READ = {
    "damaged": "a tenth of stage 1's pieces damaged",
    "damaged_filtered": "the same behind the filters",
    "clean_filtered": "nothing damaged, behind the filters",
}


def get_experiment(size: Size) -> Experiment:
    one, two = "{run}/stage1", "{run}/train"
    if size == "demo":

        def both(data: str) -> tuple[Step, ...]:
            fields = {"data.music.0.path": "{data}/" + data}
            return (small.stage1(one, fields=fields), small.stage2(two, one))

        alone, longer = small.stage2(two, ""), small.stage2(two, "", 2 * small.STEPS)
        prepare = small.PREPARE + DAMAGE
        arms = [("two_stages", "stage 1, then stage 2", both("pairs"))]
    else:

        def both(data: str) -> tuple[Step, ...]:
            fields = {"data.music.0.path": f"data/{data}"}
            return (large.stage1(one, fields=fields), large.stage2(two, one))

        alone, longer = large.stage2(two), large.stage2(two, steps=large.STAGE_1_STEPS + large.STAGE_2_STEPS)
        prepare = ()
        arms = [("two_stages", "stage 1, then stage 2", both("midi"))]
    arms += [("sft_only", "stage 2 alone", (alone,)), ("sft_longer", "stage 2 alone, the tokens of both", (longer,))]
    arms += [(name, words, both(name)) for name, words in READ.items()]
    return Experiment(
        name="sft_only",
        question="What does stage 1 bring to stage 2, and what does damaged MIDI in it take away?",
        prepare=prepare,
        arms=tuple(Arm(name, words, steps) for name, words, steps in arms),
        figures=(
            Figure("bits", "bits a note, held out, after stage 2", Logged(two, "bits_per_note")),
            Figure("onset", "onset", Logged(two, "onset_bits")),
            Figure("duration", "duration", Logged(two, "duration_bits")),
            Figure("note", "note", Logged(two, "note_bits")),
        ),
        curves=(Curve("bits a note, held out", "bits_per_note", runs=(one, two)),),
    )
