"""``python -m midillm_jax.export``: a checkpoint as a Hugging Face folder, for transformers, vLLM and ``generate``."""

import dataclasses
from pathlib import Path

from midillm_jax import commands
from midillm_jax.model import hf, hf_config, llama
from midillm_jax.text.tokenizer import load_tokenizer


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes config.json, model.safetensors, generation_config.json and the tokenizer's files."""

    checkpoint: str
    """A run's folder, for its newest checkpoint, or RUN/STEP."""
    out: Path
    """Folder to write; an earlier export there is replaced, anything else is left alone."""
    dtype: hf.Dtype = "float32"
    """Of the stored weights; float32 keeps those of a float32 run exactly."""
    tokenizer: str = ""
    """Where the run's text tokenizer is now, if it was moved since."""


def main(arguments: list[str]) -> None:
    """Writes the folder and prints what is in it."""
    chosen = commands.parse(Arguments, arguments, prog="python -m midillm_jax.export", description=__doc__)
    # Reading a checkpoint is the one thing here that needs the [train] extra.
    from midillm_jax.training import weights

    config, params = weights.load_params(chosen.checkpoint)
    tokenizer = load_tokenizer(chosen.tokenizer or config.data.tokenizer)
    # The shortest prompt, a begin and the flag, stands before them.
    longest = hf_config.sequence_length(config.model.context_length, config.data.row_length)
    limit = min(hf.Generation.max_new_tokens, longest - 2)
    folder = hf.write_hf(
        chosen.out,
        config.model,
        params,
        tokenizer,
        dtype=chosen.dtype,
        generation=hf.Generation(max_new_tokens=limit),
        trained_with=config,
    )
    files = sorted(file for file in folder.iterdir() if file.is_file())
    tied = "the head is the embedding table" if config.model.tie_embeddings else "the head has a table of its own"
    print(f"{folder}: {llama.parameter_count(config.model):,} parameters in {chosen.dtype}, {tied}")
    for file in files:
        print(f"  {file.name:24} {file.stat().st_size:>14,} bytes")


if __name__ == "__main__":
    commands.run(main)
