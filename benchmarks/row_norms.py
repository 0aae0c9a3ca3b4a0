"""How long a table's rows are before and after a training that grew it.

    python benchmarks/row_norms.py RUN --json norms.json

Reads the run's newest checkpoint, and from its config the text model that it began with and how the music rows began,
which are made again. Prints mean Euclidean lengths of the embedding's music and text rows before and after.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from midillm_jax.model import hf
from midillm_jax.model.embedding import resize_embedding
from midillm_jax.training import weights


def lengths(table: np.ndarray, text: int, music: int) -> tuple[float, float]:
    """Means over text rows and over music rows."""
    norms = np.linalg.norm(np.asarray(table, np.float32), axis=1)
    return float(norms[:text].mean()), float(norms[text : text + music].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config, after = weights.load_params(arguments.run)
    base, params = hf.read_hf(config.init_from, dtype="float32")
    before = resize_embedding(params, base, config.model.music_vocab_size, config.music_init, config.seed)
    sizes = (config.model.text_vocab_size, config.model.music_vocab_size)
    found = {}
    for when, tree in (("before", before), ("after", after)):
        found[f"text_{when}"], found[f"music_{when}"] = lengths(tree["embedding"], *sizes)
    print(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
