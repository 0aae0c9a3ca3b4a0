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

    python benchmarks/measures.py --captions mini/captions.jsonl --held-out mini/real --pieces 64 \\
        --models mini=mini/model --out music

Models are asked for music for the pieces' captions, one piece each, at most a window long, sampled as their folders
recommend. A table of its own sets them beside the real pieces and the 5-gram:

    =           not told from the real pieces
    **score**   better than the same music held against shuffled captions, by more than chance
    +           better than the 5-gram's, by more than chance

``--held-out`` names the prepared folder that they were trained on; only pieces of its validation split are then drawn
as examples. ``--json FILE`` writes all of it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from midillm_jax.data.captioning import caption_files
from midillm_jax.data.demo import write_band
from midillm_jax.data.shards import open_split
from midillm_jax.evaluation import degraded, inputs, measures
from midillm_jax.evaluation.degraded import NGRAM, REAL, SETS, SHUFFLED, Draw
from midillm_jax.evaluation.generation import Sampling, generate
from midillm_jax.evaluation.measures import Finding
from midillm_jax.inference import compose
from midillm_jax.inference.request import MusicRequest
from midillm_jax.music.midi import NoteTable

MANIFEST = "MANIFEST.tsv"


def draw(arguments: argparse.Namespace) -> Draw:
    """From captions, from a folder, or from a band."""
    pieces, seed, corpus = arguments.pieces, arguments.seed, arguments.corpus
    held_out = None if arguments.held_out is None else names(arguments.held_out)
    if arguments.captions is not None:
        return degraded.draw(arguments.captions, pieces, seed, held_out)
    with tempfile.TemporaryDirectory() as made:
        if corpus is None:
            write_band(Path(made) / "band", 10 * pieces, seed, documents=0)
            return degraded.draw(Path(made) / "band" / "captions.jsonl", pieces, seed)
        captions, manifest = Path(made) / "captions.jsonl", corpus / MANIFEST
        caption_files([str(corpus)], captions, manifest=manifest if manifest.is_file() else None, workers=1)
        return degraded.draw(captions, pieces, seed, held_out)


def names(folder: Path) -> frozenset[str]:
    """Of the pieces that a prepared folder holds out."""
    split = open_split(folder, "validation", kinds=("pairs",))
    return frozenset(split.piece(record).name for record in range(len(split)))


def written(model: Path, drawn: Draw, seed: int, out: Path) -> list[NoteTable]:
    """A piece for each caption; those that lie in ``out`` already are not written again."""
    loaded = compose.load_model(model)
    sampling = Sampling(loaded.temperature, loaded.top_p, MusicRequest.max_notes, MusicRequest.max_seconds)
    prompts = [inputs.Prompt(each.caption, f"piece {number}") for number, each in enumerate(drawn.examples)]
    pieces = generate(
        lambda: loaded, inputs.model_fingerprint(model), prompts, sampling, seed, out, lambda done, total, doing: None
    )
    return [piece.table for piece in pieces]


def score_of(finding: Finding, name: str) -> str:
    """In the unit of the measure."""
    is_share = not finding.measure.startswith(("mean", "bits"))
    return finding.scores[name].percent() if is_share else finding.scores[name].numbers()


def ladder_cells(finding: Finding) -> list[str]:
    """Score by score."""
    texts = []
    for name in SETS:
        text, gap = score_of(finding, name), finding.gaps.get(name)
        if gap is not None:
            text = f"**{text}**" if gap.seen else f"{text} <" if gap.contrary else text
            text += " !" if name in finding.claims and not gap.seen else ""
        texts.append(text)
    return [*texts, f"`{finding.order()}`"]


def model_cells(finding: Finding, models: Sequence[str]) -> list[str]:
    """The real pieces' score and the 5-gram's, then of each model its own and that of shuffled captions."""
    texts = [score_of(finding, REAL), score_of(finding, NGRAM)]
    for name in models:
        text, gap, dealt = score_of(finding, name), finding.gaps[name], f"{name}, {SHUFFLED}"
        if finding.asked[name, dealt].seen:
            text = f"**{text}**"
        if finding.asked[name, NGRAM].seen and finding.better != "other":
            text += " +"
        texts += [text if gap.seen or gap.contrary else f"{text} =", score_of(finding, dealt)]
    return texts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--corpus", type=Path, help="folder of MIDI files")
    source.add_argument("--captions", type=Path, help="captions.jsonl of MIDI files")
    parser.add_argument("--held-out", type=Path, help="prepared folder; of its validation split are the examples")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME=DIR", help="models to set beside them")
    parser.add_argument("--pieces", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder that keeps what models write, so that a rerun goes on")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    models = {name: Path(folder) for name, _, folder in (each.partition("=") for each in arguments.models)}
    drawn = draw(arguments)
    unigram, ngram = measures.count(drawn.others)
    print(f"writing what {len(drawn.others):,} pieces taught the 5-gram", file=sys.stderr)
    sets = degraded.degrade(drawn.examples, ngram, arguments.seed)
    with tempfile.TemporaryDirectory() as made:
        for name, folder in models.items():
            print(f"writing: {name}", file=sys.stderr, flush=True)
            music = written(folder, drawn, arguments.seed, (arguments.out or Path(made)) / name)
            sets |= degraded.written(name, music, drawn.examples, arguments.seed)
    found = measures.find(
        sets,
        drawn.references,
        unigram,
        ngram,
        arguments.seed,
        lambda name: print(f"measuring: {name}", file=sys.stderr, flush=True),
        [pair for name in models for pair in ((name, f"{name}, {SHUFFLED}"), (name, NGRAM))],
    )
    kinds = sorted({example.kind for example in drawn.examples})
    print(
        f"{len(drawn.examples)} pieces, {len(drawn.references)} references, counted on {len(drawn.others):,}, of "
        f"{len(kinds)} kinds: {', '.join(kinds)}"
    )
    table(["measure", *SETS, "order"], ([each.measure, *ladder_cells(each)] for each in found))
    if models:
        beside = [column for name in models for column in (name, f"{name}, {SHUFFLED}")]
        table(["measure", REAL, NGRAM, *beside], ([each.measure, *model_cells(each, list(models))] for each in found))
    broken = [finding.measure for finding in found if not finding.kept]
    print(f"\nclaims that do not hold here: {', '.join(broken) or 'none'}")
    if arguments.json:
        figures = {"pieces": arguments.pieces, "seed": arguments.seed, "findings": [each.to_json() for each in found]}
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
