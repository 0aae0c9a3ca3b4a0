"""Stage 2: the loss on the prompt too, and the augmentation off, each against the recipe.

    python -m midillm_jax.experiment --config experiments/stage2_choices.py --midi MIDI --text TEXT

From fresh weights on captioned pieces, full softmax (a prompt has no slot). ``prompt_too`` gives the prompt's tokens
the weight of the music's; ``no_infilling`` has no anticipated notes, ``no_transposition`` leaves the keys as they are.
Held-out pieces are plain: how well it infills is not asked. Not run yet; a training takes as long as the full
ones of slot_full.py. At 1B: configs/stage2.py with transposition by five semitones, which it lacks.
"""

from midillm_jax.experiments import large, small
from midillm_jax.experiments.plan import Arm, Curve, Experiment, Figure, Logged, Size

PLAIN = {"data.anticipation.spans": 0, "data.anticipation.random": 0, "data.anticipation.instruments": 0}


def get_experiment(size: Size) -> Experiment:
    changes = {
        "recipe": ("music alone, all augmentation", {}),
        "prompt_too": ("loss on prompt and music", {"data.prompt-weight": 1}),
        "no_infilling": ("no anticipated notes", PLAIN),
        "no_transposition": ("no transposition", {"data.transpose": 0}),
    }
    arms = []
    for name, (words, fields) in changes.items():
        if size == "demo":
            step = small.stage2("{run}/train", "", fields={"loss.kind": "full", **fields})
        else:
            step = large.stage2("{run}/train", fields={"data.transpose": 5, **fields})
        arms.append(Arm(name, words, (step,)))
    return Experiment(
        name="stage2_choices",
        question="Does a loss on the prompt, or augmentation, change how well held-out pieces are foreseen?",
        prepare=small.PREPARE if size == "demo" else (),
        arms=tuple(arms),
        figures=(
            Figure("bits", "bits a note, held out", Logged("{run}/train", "bits_per_note")),
            Figure("prompt", "nats a prompt token, held out", Logged("{run}/train", "text_loss"), arms=("prompt_too",)),
        ),
        curves=(Curve("bits a note, held out", "bits_per_note"),),
    )
