"""Which measure of music sees what? Real pieces with captions, made worse step by step, under every measure.

    python benchmarks/measures.py --corpus FOLDER --pieces 96
    python benchmarks/measures.py                                 # on pieces of the demo's band, which play by rule

FOLDER holds MIDI files in a folder a source, and a MANIFEST.tsv if there is one; captions are written as ``prepare
caption`` does. Pieces are drawn evenly over the sources, as many again as references for likeness, and on all others a
unigram and a 5-gram are counted; no two parts share a group of the manifest. The sets that are made of the pieces stand
in midillm_jax/evaluation/degraded.py.

Prints a table, a measure a row and a set a column: the score with its 95 % interval over pieces, and

    **score**   told from the real pieces by more than chance
    !           claimed to be told from them, but is not
    <           better than the real pieces by more than chance

and in the last column the order of real (r), captions shuffled (c), other genre (o), pitches scrambled (p) and noise
(n), each beside the one before: ``>`` better by more than chance, ``<`` worse, ``#`` other, ``=`` not told apart.
``--json FILE`` writes all of it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from midillm_jax.data.captioning import caption_files
from midillm_jax.data.demo import write_band
from midillm_jax.evaluation import degraded, measures
from midillm_jax.evaluation.degraded import Draw
from midillm_jax.evaluation.measures import Finding

MANIFEST = "MANIFEST.tsv"


def draw(corpus: Path | None, pieces: int, seed: int) -> Draw:
    """From a folder, or from a band."""
    with tempfile.TemporaryDirectory() as made:
        if corpus is None:
            write_band(Path(made) / "band", 10 * pieces, seed, documents=0)
            return degraded.draw(Path(made) / "band" / "captions.jsonl", pieces, seed)
        captions, manifest = Path(made) / "captions.jsonl", corpus / MANIFEST
        caption_files([str(corpus)], captions, manifest=manifest if manifest.is_file() else None, workers=1)
        return degraded.draw(captions, pieces, seed)


def cells(finding: Finding) -> list[str]:
    """Score by score, in the unit of the measure."""
    texts = []
    for name, score in finding.scores.items():
        is_share = not finding.measure.startswith(("mean", "bits"))
        text = score.percent() if is_share else score.numbers()
        gap = finding.gaps.get(name)
        if gap is not None:
            text = f"**{text}**" if gap.seen else f"{text} <" if gap.contrary else text
            text += " !" if name in finding.claims and not gap.seen else ""
        texts.append(text)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--pieces", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    drawn = draw(arguments.corpus, arguments.pieces, arguments.seed)
    unigram, ngram = measures.count(drawn.others)
    print(f"writing what {len(drawn.others):,} pieces taught the 5-gram", file=sys.stderr)
    sets = degraded.degrade(drawn.examples, ngram, arguments.seed)
    found = measures.find(
        sets,
        drawn.references,
        unigram,
        ngram,
        arguments.seed,
        lambda name: print(f"measuring: {name}", file=sys.stderr, flush=True),
    )
    kinds = sorted({example.kind for example in drawn.examples})
    print(
        f"{len(drawn.examples)} pieces, {len(drawn.references)} references, counted on {len(drawn.others):,}, of "
        f"{len(kinds)} kinds: {', '.join(kinds)}\n"
    )
    print(f"| measure | {' | '.join(sets)} | order |\n|---|{'---|' * len(sets)}---|")
    for finding in found:
        print(f"| {finding.measure} | {' | '.join(cells(finding))} | {finding.order()} |")
    broken = [finding.measure for finding in found if not finding.kept]
    print(f"\nclaims that do not hold here: {', '.join(broken) or 'none'}")
    if arguments.json:
        figures = {"pieces": arguments.pieces, "seed": arguments.seed, "findings": [each.to_json() for each in found]}
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
