"""What rounding the weights does to the music: KL divergence of the next music token, on vLLM.

    python -m midillm_jax.export --checkpoint runs/stage2 --out exact --dtype bfloat16
    python -m midillm_jax.export --checkpoint runs/stage2 --out rounded --dtype int8
    python benchmarks/quantized.py exact rounded --midi FOLDER

Runs where vLLM is. Each piece of FOLDER is one prompt, its first ``--triples`` triples behind the flag; both models
give their probabilities of every id at every position. Prints one line: KL(exact || rounded) in nats a token, its mean
and its 95th percentile over positions, how often the most likely id is the same, and the nats a token of both.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def log_probabilities(folder: Path, prompts: list[list[int]]) -> list[np.ndarray]:
    """float32 [T, V] of each prompt's tokens behind the first, in bfloat16."""
    import vllm

    network = vllm.LLM(
        str(folder),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_logprobs=-1,
        enforce_eager=True,
        enable_chunked_prefill=False,
    )
    parameters = vllm.SamplingParams(max_tokens=1, prompt_logprobs=-1, detokenize=False)
    found = []
    for prompt in prompts:
        (answer,) = network.generate({"prompt_token_ids": prompt}, sampling_params=parameters, use_tqdm=False)
        rows = []
        for position in answer.prompt_logprobs[1:]:
            row = np.full(len(position), -np.inf, np.float32)
            for token, entry in position.items():
                row[token] = entry.logprob
            rows.append(row)
        found.append(np.stack(rows))
    return found


def main() -> None:
    from midillm_jax.model import hf_config
    from midillm_jax.music.amt import encode_midi
    from midillm_jax.music.vocab import AUTOREGRESS
    from midillm_jax.text.tokenizer import load_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exact", type=Path)
    parser.add_argument("rounded", type=Path)
    parser.add_argument("--midi", type=Path, required=True, help="folder of pieces")
    parser.add_argument("--pieces", type=int, default=6)
    parser.add_argument("--triples", type=int, default=20)
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.exact)
    rows = hf_config.own_text_vocab_size(options.exact) or tokenizer.vocab_size
    prompts = []
    for file in sorted(options.midi.glob("**/*.mid"))[: options.pieces]:
        music: Any = encode_midi(file.read_bytes())[: 3 * options.triples]
        prompts.append([tokenizer.bos_id, rows + AUTOREGRESS, *(rows + music).tolist()])
    exact, rounded = (log_probabilities(folder, prompts) for folder in (options.exact, options.rounded))
    divergences, same, nats = [], [], []
    for prompt, ours, theirs in zip(prompts, exact, rounded, strict=True):
        # The first row is that of the flag.
        ours, theirs, tokens = ours[1:], theirs[1:], np.array(prompt[2:])
        divergences.append((np.exp(ours) * (ours - theirs)).sum(1))
        same.append(ours.argmax(1) == theirs.argmax(1))
        nats.append([-logs[np.arange(len(tokens)), tokens] for logs in (ours, theirs)])
    every = np.concatenate(divergences)
    before, after = (float(np.concatenate([pair[at] for pair in nats]).mean()) for at in (0, 1))
    print(
        f"{len(every)} music tokens of {len(prompts)} pieces: KL {every.mean():.5f} nats a token (95th percentile "
        f"{np.percentile(every, 95):.5f}), the same most likely id at {100 * np.concatenate(same).mean():.1f} %, "
        f"{before:.4f} -> {after:.4f} nats a token"
    )


if __name__ == "__main__":
    main()
