"""AMT triples against the same events written in the base's own vocabulary: how long is a piece?

    python -m midillm_jax.experiment --config experiments/tokens.py --midi MIDI --base BASE

Exact counts over all pieces; nothing is trained. ``--base`` is SmolLM2's folder (launch/smollm2.py makes it);
Llama 3's vocabulary comes with the package llama-models. 2 CPU cores that much other work shared:
eleven minutes. At 1B the counts are the same.
"""

from typing import Any

from midillm_jax.experiments import small
from midillm_jax.experiments.plan import Arm, Experiment, Figure, Reported, Size


def get_experiment(size: Size) -> Experiment:
    def arm(name: str, words: str, *options: str) -> Arm:
        counted = ("benchmarks/event_text.py", "{data}/captions.jsonl", *options, "--json", "{run}/lengths.json")
        return Arm(name, words, (counted,))

    def found(name: str, words: str, **more: Any) -> Figure:
        return Figure(name, words, Reported("{run}/lengths.json", name), **more)

    return Experiment(
        name="tokens",
        question="How long are pieces as AMT triples, and how long written out in the base's own vocabulary?",
        prepare=small.PREPARE[:1],
        arms=(
            arm("triples", "AMT triples, rests included"),
            arm("base_delta", "SmolLM2's vocabulary, onsets from the note before", "--tokenizer", "{base}", "--delta"),
            arm("base", "SmolLM2's vocabulary, onsets from the start", "--tokenizer", "{base}"),
            arm("llama3_delta", "Llama 3's, onsets from the note before", "--tokenizer", "llama3", "--delta"),
            arm("llama3", "Llama 3's, onsets from the start", "--tokenizer", "llama3"),
        ),
        seeds=(0,),
        exact=True,
        figures=(
            found("tokens", "tokens of the corpus", digits=0),
            found("a_note", "tokens a note"),
            found("by_triples", "by those of the triples"),
            found("notes_a_row", "notes in a row of 2,048", better="higher", digits=0),
            found("whole_pieces", "pieces that fit whole", better="higher"),
        ),
    )
