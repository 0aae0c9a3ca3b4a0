"""``python -m midillm_jax.export``: a checkpoint as a Hugging Face folder, for transformers, vLLM and ``generate``.

The adapters of a finetuning are merged into the weights; with ``--format peft`` they are written on their own, as an
adapter that the PEFT library loads over the base. With ``--format gguf`` the weights are a file for llama.cpp.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

from midillm_jax import commands
from midillm_jax.errors import UserError
from midillm_jax.model import finetune, gguf, hf, hf_card, hf_config, hf_write, hub, hub_push, llama, peft
from midillm_jax.text.tokenizer import load_tokenizer


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes config.json, model.safetensors, generation_config.json and the tokenizer's files."""

    checkpoint: str
    """A run's folder, also gs://, for its newest checkpoint, or RUN/STEP; without --out, a Hugging Face folder that is
    there, for --verify also its name on the Hub."""
    out: Path | None = None
    """Folder to write; an earlier export there is replaced, anything else is left alone."""
    format: Literal["model", "gguf", "peft"] = "model"
    """``model`` is a whole model; ``gguf`` one for llama.cpp; ``peft`` a finetuning's adapters alone, for PEFT."""
    shard_gb: float = 5.0
    """Weights beyond so many GB (1e9 bytes) go into several files with an index; 0 for one file."""
    verify: bool = False
    """Compares the folder's logits with those of transformers in float32; needs torch and transformers."""
    push_to_hub: str = ""
    """OWNER/NAME on the Hugging Face Hub to upload the folder to, made if it is not there; `hf auth login` first."""
    private: bool = False
    """With --push-to-hub: a repository for its owner alone."""
    dtype: Literal["float32", "bfloat16", "float16", "int8", "q8_0"] = "float32"
    """Of the stored weights; float32 keeps those of a float32 run exactly. int8 is for vLLM (compressed-tensors), q8_0
    for gguf alone, where bfloat16 is not."""
    temperature: float = hf_write.Generation.temperature
    """What generation_config.json recommends, and `generate` does where nothing else is asked for; so with top-p."""
    top_p: float = hf_write.Generation.top_p
    tokenizer: str = ""
    """Where the run's text tokenizer is now, if it was moved since."""
    base: str = ""
    """Where the base of a finetuning is now, if it was moved since."""


def main(arguments: list[str]) -> None:
    """Writes the folder and prints what is in it."""
    chosen = commands.parse(Arguments, arguments, prog="python -m midillm_jax.export", description=__doc__)
    if chosen.verify and chosen.format != "model":
        raise UserError("--verify compares what transformers loads; leave it out, or choose --format model.")
    if chosen.verify and chosen.dtype == "int8":
        raise UserError("--verify compares with unrounded weights; leave it out, or choose another --dtype than int8.")
    dtypes = get_args({"model": hf_write.Dtype, "gguf": gguf.Dtype, "peft": hf.Dtype}[chosen.format])
    if chosen.dtype not in dtypes:
        raise UserError(f"--dtype {chosen.dtype} is not for --format {chosen.format}; choose {' or '.join(dtypes)}.")
    if chosen.private and not chosen.push_to_hub:
        raise UserError("--private goes with --push-to-hub OWNER/NAME, which is missing.")
    if chosen.push_to_hub:
        hub_push.check(chosen.push_to_hub)
    if chosen.out is not None:
        folder, what = (_export_adapters if chosen.format == "peft" else _export_model)(chosen, chosen.out)
        print(f"{folder}: {what}")
        for file in sorted(file for file in folder.iterdir() if file.is_file()):
            print(f"  {file.name:24} {file.stat().st_size:>14,} bytes")
    elif chosen.verify or chosen.push_to_hub:
        folder = hub.local_folder(chosen.checkpoint)
    else:
        raise UserError(
            "--out is missing; name the folder to write, or compare one that is there with --verify, or upload it with "
            "--push-to-hub."
        )
    if chosen.verify:
        print(_compared(folder))
    if chosen.push_to_hub:
        print(hub_push.push(folder, chosen.push_to_hub, chosen.private))


def _compared(folder: Path) -> str:
    """Says how far our logits are from transformers'.

    Raises:
        UserError: further than rounding takes them.
    """
    from midillm_jax.inference import verify

    found = verify.compare(folder)
    told = (
        f"{found.positions} positions of text and music, {found.transformers}: logits differ by {found.difference:.1e} "
        f"at most, the largest being {found.largest:.1f}"
    )
    if found.difference > verify.TOLERANCE * found.largest:
        raise UserError(
            f"{folder}: {told}; expected less than {verify.TOLERANCE:g} of that. Do not use this folder, and report it."
        )
    return told


# Reading a checkpoint is the one thing here that needs the [train] extra.


def _export_model(chosen: Arguments, out: Path) -> tuple[Path, str]:
    from midillm_jax.training import run_log, weights

    config, params = weights.load_params(chosen.checkpoint, chosen.base)
    tokenizer = load_tokenizer(chosen.tokenizer or config.data.tokenizer)
    # The shortest prompt, a begin and the flag, stands before them.
    longest = hf_config.sequence_length(config.model.context_length, config.data.row_length)
    run, step = weights.saved_step(chosen.checkpoint)
    origin, parameters = weights.origin(config), llama.parameter_count(config.model)
    card = hf_card.card(
        config.model,
        config,
        library="gguf" if chosen.format == "gguf" else "transformers",
        parameters=parameters,
        dtype=chosen.dtype,
        step=step,
        origin=origin,
        scores=run_log.held_out_figures(run, step),
    )
    tokens = min(hf_write.Generation.max_new_tokens, longest - 2)
    generation = hf_write.Generation(chosen.temperature, chosen.top_p, tokens)
    documents = hf_card.licences(config.model, origin) | {"README.md": card}
    write: Callable[..., Path] = functools.partial(hf_write.write_hf, shard_bytes=round(chosen.shard_gb * 1e9) or None)
    if chosen.format == "gguf":
        write = gguf.write_gguf
    folder = write(
        out,
        config.model,
        params,
        tokenizer,
        dtype=chosen.dtype,
        generation=generation,
        trained_with=config,
        documents=documents,
    )
    tied = "the head is the embedding table" if config.model.tie_embeddings else "the head has a table of its own"
    return folder, f"{parameters:,} parameters in {chosen.dtype}, {tied}"


def _export_adapters(chosen: Arguments, out: Path) -> tuple[Path, str]:
    from midillm_jax.training import weights

    if chosen.tokenizer:
        raise UserError("--tokenizer goes with --format model; an adapter uses its base's tokenizer.")
    config, trained = weights.load_trained(chosen.checkpoint)
    if chosen.base:
        config = dataclasses.replace(config, init_from=chosen.base)
    folder = peft.write_peft(out, trained, config, dtype=cast(hf.Dtype, chosen.dtype))
    count = finetune.trained_count(config.model, config.finetune)
    return folder, f"adapters of {count:,} parameters in {chosen.dtype}, for peft over {config.init_from}"


if __name__ == "__main__":
    commands.run(main)
