"""What goes along with exported weights for people to read: the model card, and what a licence asks for."""

from pathlib import Path
from typing import Literal

from midillm_jax.config import Config, ModelConfig

LLAMA_3_ROWS = 128_256
"""Text rows of Llama 3's tokenizer, which no other base that is read here has."""
_LLAMA_NOTICE = (
    "Llama 3.2 is licensed under the Llama 3.2 Community License, "
    "Copyright \u00a9 Meta Platforms, Inc. All Rights Reserved.\n"
)
LICENCE_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")


def is_llama(model: ModelConfig, origin: str) -> bool:
    """Whether these weights were grown from Meta's Llama 3: they have its text rows, and began with somebody's weights.

    Args:
        origin: what the first run of the chain began with; empty for fresh weights.
    """
    return bool(origin) and model.text_vocab_size == LLAMA_3_ROWS


def licences(model: ModelConfig, origin: str) -> dict[str, bytes]:
    """Files by name: the licence files that lie beside the base, and the notice that Llama's licence asks for."""
    base = Path(origin) if origin else None
    found = {}
    if base is not None and base.is_dir():
        found = {path.name: path.read_bytes() for pattern in LICENCE_FILES for path in sorted(base.glob(pattern))}
    if is_llama(model, origin):
        found["NOTICE"] = _LLAMA_NOTICE.encode()
    return found


def card(
    model: ModelConfig,
    run: Config,
    *,
    library: Literal["transformers", "gguf"],
    parameters: int,
    dtype: str,
    step: int,
    origin: str,
    scores: dict[str, float],
) -> str:
    """README.md of an exported folder, by Hugging Face's form (https://huggingface.co/docs/hub/model-cards).

    Args:
        library: that reads the weights.
        step: of the checkpoint.
        origin: as for :func:`is_llama`.
        scores: held-out figures of the run's log at that step, perhaps none.
    """
    head = [f"library_name: {library}", "tags: [midi, music, text-to-midi, midillm_jax]"]
    notes = []
    if is_llama(model, origin):
        head.append("license: llama3.2")
        notes.append("**Built with Llama.** NOTICE and the licence of Llama 3.2 go along with these weights.\n")
    if origin and "://" not in origin and not Path(origin).exists():
        head.append(f"base_model: {origin}")
    if run.loss.kind == "slot":
        notes.append(
            "Trained with the slot-normalised loss: its probabilities mean something under the grammar only, so\n"
            "engines without the grammar cannot sample it.\n"
        )
    begun = origin or "fresh weights"
    if run.init_from not in ("", origin):
        begun += f", through {run.init_from}"
    if run.finetune is not None:
        begun += "; a finetuning, adapters and music rows merged into the base"
    rows = run.data.music_rows + run.data.text_rows
    sources = [("music", source) for source in run.data.music] + [("text", source) for source in run.data.text]
    figures = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in scores.items()]
    return _CARD.format(
        head="\n".join(head),
        serve=_SERVE[library],
        notes="".join(f"{note}\n" for note in notes),
        name=run.name,
        parameters=f"{parameters:,} parameters, stored as {dtype}; {model.num_layers} layers of width {model.d_model}",
        begun=begun,
        steps=f"{step:,} of {run.steps:,} steps, {rows} rows of {run.data.row_length:,} tokens each: "
        f"{step * rows * run.data.row_length:,} tokens",
        recipe=f"{run.loss.kind} loss, AdamW, peak learning rate {run.optimizer.learning_rate:g}",
        data="\n".join(f"| {kind} | {source.path} | {source.weight:g} |" for kind, source in sources),
        scores="\n".join([f"Held-out rows at step {step:,}:", "", *figures])
        if figures
        else "None is in the run's log for this step.",
    )


_SERVE = {
    "transformers": 'vllm serve FOLDER --skip-tokenizer-init      # with the grammar: vllm_xargs {"midi_grammar": 1}',
    "gguf": "llama-cli -m FOLDER/model.gguf               # text; music needs the grammar, which generate has",
}
_CARD = """---
{head}
---

# {name}

A Llama that writes multitrack MIDI from text, trained with midillm_jax: its vocabulary holds the 55,030 tokens of the
Anticipatory Music Transformer (arXiv 2306.08620) behind those of its text tokenizer, as MIDI-LLM's does (arXiv
2511.03942).

{notes}## Use

    python -m midillm_jax.generate --model FOLDER --prompt "A calm waltz for flute and piano."
    {serve}

## Training

- {parameters}
- begun with {begun}
- {steps}
- {recipe}; every field is in midillm.json

| rows | data | weight |
|---|---|---|
{data}

Which licences these data carry is not recorded; whoever publishes the weights should say it here.

## Scores

{scores}
"""
