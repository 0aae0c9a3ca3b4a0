"""``python -m midillm_jax.prepare``: files become shards that training reads.

midi: a folder of MIDI files; pairs: MIDI files with captions; text: text files; tokenizer: learns a vocabulary;
caption: writes captions of MIDI files; demo: writes a small made-up corpus; dedupe: leaves out what occurs twice;
inspect: says what a folder of shards holds; fetch: downloads a published data set.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from midillm_jax import commands
from midillm_jax.data.band.compose import Profile
from midillm_jax.data.fetch import Name
from midillm_jax.data.jobs import Filters
from midillm_jax.data.splits import By
from midillm_jax.errors import UserError

if TYPE_CHECKING:
    from midillm_jax.data.build import Runner
    from midillm_jax.data.shards import Kind
    from midillm_jax.data.sources import Listing

Globs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="GLOB ...")]
Inputs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR|FILE|URL ...")]
Folders = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")]
Location = Annotated[str, tyro.conf.arg(metavar="DIR|FILE|URL")]
Options = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")]

_LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class Building:
    """How shards are built; options of midi, pairs and text alike."""

    exclude: Globs = ()
    """Patterns on file or folder names to leave out."""
    source: str = ""
    """Name of the data set; each input's own name if empty."""
    column: str = ""
    """Column of tables; the only one that can be meant if empty."""
    validation_share: float = 0.05
    """Share held out where a hash decides."""
    workers: int = 0
    """Processes; 0 for one a core."""
    runner: str = _LOCAL
    """Local processes, or an Apache Beam runner: DirectRunner, DataflowRunner, FlinkRunner, SparkRunner."""
    beam_options: Options = ()
    """Beam's own options, without dashes."""
    staging: Location = ""
    """Folder or bucket for unfinished work that all of Beam's workers reach; beside --out if empty."""
    overwrite: bool = False
    """Replace a prepared folder that was made differently."""


@dataclasses.dataclass(frozen=True)
class HoldingOut:
    """Which pieces are held out; options of midi and pairs alike."""

    split: By = "auto"
    """auto: by the name where it is an MD5 as in Lakh (e validation, f test) unless captions give a group, else hash;
    lakh: by the first hex digit of the name; midicaps: test_set of the captions is for testing, the rest as hash;
    hash: a share, by a hash of each piece's group or notes."""
    test_ids: Location = ""
    """File of names of pieces that are for testing, one a line or a JSON list."""


_BUILDING = Building()
_HOLDING_OUT = HoldingOut()
_NO_FILTERS = Filters()


def midi(
    input: Inputs,
    out: Path,
    filters: Filters = _NO_FILTERS,
    holding_out: tyro.conf.OmitArgPrefixes[HoldingOut] = _HOLDING_OUT,
    building: tyro.conf.OmitArgPrefixes[Building] = _BUILDING,
) -> None:
    """MIDI files become shards.

    Args:
        input: Folders searched for .mid, .midi, .kar and .parquet files; archives (.tar, .tar.gz, .zip ...); parquet
            files with a column of bytes. Local paths, gs://, hf:// and what else fsspec reads.
        out: Folder to make.
        filters: Pieces to leave out.
        holding_out: Which pieces are held out.
        building: How.
    """
    from midillm_jax.data import sources

    listing = sources.midi_files(input, source=building.source, exclude=building.exclude, column=building.column)
    _build_music(listing, "midi", filters, holding_out, building, out)


def pairs(
    input: Location,
    out: Path,
    midi: Location = "",
    filters: Filters = _NO_FILTERS,
    holding_out: tyro.conf.OmitArgPrefixes[HoldingOut] = _HOLDING_OUT,
    building: tyro.conf.OmitArgPrefixes[Building] = _BUILDING,
) -> None:
    """Captioned MIDI files become shards.

    Args:
        input: captions.jsonl or a folder that holds it, or MidiCaps' train.json: one JSON object a line with location
            and caption.
        out: Folder to make.
        midi: Folder, archive or parquet file that locations are relative to; the input's own folder if empty.
        filters: Pieces to leave out.
        holding_out: Which pieces are held out.
        building: How.
    """
    from midillm_jax.data import sources

    listing = sources.captioned_files(
        input, midi=midi or None, source=building.source, exclude=building.exclude, column=building.column
    )
    _build_music(listing, "pairs", filters, holding_out, building, out)


def text(
    input: Inputs,
    tokenizer: str,
    out: Path,
    document_bytes: int = 16_384,
    building: tyro.conf.OmitArgPrefixes[Building] = _BUILDING,
) -> None:
    """Text becomes shards of token ids.

    Args:
        input: Text files, JSON lines, parquet files with a column of text, or folders searched recursively for them.
            Local paths, gs://, hf:// and what else fsspec reads.
        tokenizer: A sentencepiece .model, a Hugging Face tokenizer.json, or a folder that holds one.
        out: Folder to make.
        document_bytes: Texts are cut between paragraphs into documents of at most this many bytes. A file or row is
            held out whole; below 20 files, each document by itself.
        building: How.
    """
    from midillm_jax.data import build, sources
    from midillm_jax.data.splits import SplitRule

    listing = sources.text_files(
        input,
        source=building.source,
        exclude=building.exclude,
        column=building.column,
        document_bytes=document_bytes,
    )
    plan = build.text_plan(tokenizer, SplitRule("hash", building.validation_share))
    build.build(listing, plan, out, runner=_runner(building), overwrite=building.overwrite)


def _build_music(
    listing: "Listing", kind: "Kind", filters: Filters, holding_out: HoldingOut, building: Building, out: Path
) -> None:
    from midillm_jax.data import build
    from midillm_jax.data.splits import SplitRule, read_ids

    ids = read_ids(holding_out.test_ids) if holding_out.test_ids else frozenset()
    rule = SplitRule(holding_out.split, building.validation_share, ids)
    plan = build.music_plan(listing, kind, filters, rule)
    build.build(listing, plan, out, runner=_runner(building), overwrite=building.overwrite)


def _runner(building: Building) -> "Runner":
    from midillm_jax.data.build import Runner

    beam = "" if building.runner == _LOCAL else building.runner
    return Runner(building.workers, beam, building.beam_options, building.staging)


def tokenizer(input: Inputs, vocab_size: int, out: Path, exclude: Globs = (), column: str = "") -> None:
    """Learns a sentencepiece vocabulary from text files.

    Args:
        input: Text files, JSON lines, parquet files, or folders searched recursively for them.
        vocab_size: Pieces to learn, exactly.
        out: The .model file to write.
        exclude: Patterns on file or folder names to leave out.
        column: Column of tables ("caption" for captions.jsonl); "text", or the only column of text, if empty.
    """
    from midillm_jax.data import sources
    from midillm_jax.text.tokenizer import train_sentencepiece

    texts = sources.read_texts(input, exclude=exclude, column=column)
    made = train_sentencepiece(texts, out, vocab_size)
    print(f"{out} is ready: {made.vocab_size:,} pieces")


def demo(out: Path, pieces: int = 200, seed: int = 0, profile: Profile = "full") -> None:
    """Writes a made-up corpus: MIDI files by rule, captions that are exactly true, and text.

    Args:
        out: Folder to make.
        pieces: How many.
        seed: Draws the pieces.
        profile: What they are like.
    """
    from midillm_jax.data.demo import write_band

    report = write_band(out, pieces, seed, profile=profile)
    print(f"{out} is ready: {report.pieces:,} pieces, {report.seconds / 60:.0f} minutes, {report.documents:,} texts")


def caption(
    input: Inputs,
    out: Path,
    manifest: Path | None = None,
    captions: int = 3,
    exclude: Globs = (),
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes captions of what is plainly in MIDI files: instruments, tempo, key, meter, chords, drums, length.

    Args:
        input: Folders, archives and tables of MIDI files, as for midi.
        out: The captions.jsonl to write.
        manifest: Table (TSV) with a row a file, for what the files do not say, such as genre and mood.
        captions: How many for each piece.
        exclude: Patterns on file or folder names to leave out.
        seed: Draws the wording.
        workers: Processes; 0 for as many as pay.
        overwrite: Replace the file if it is there already.
    """
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name the file to write, such as {out / 'captions.jsonl'}")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out}: is there already; name another file, or --overwrite to replace it")
    from midillm_jax.data.captioning import caption_files

    caption_files(input, out, manifest=manifest, exclude=exclude, count=captions, seed=seed, workers=workers)


def dedupe(
    input: Folders,
    out: Path,
    threshold: float = 0.4,
    within: bool = False,
    exclude_ids: str = "",
    report_only: bool = False,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Leaves out of prepared folders what an earlier folder or a held-out split has already.

    Args:
        input: Folders made by prepare midi or pairs, the one of the last training stage first.
        out: Folder to write removed.jsonl and the new folders into.
        threshold: Least similarity of near duplicates, above 0 and up to 1.
        within: Also keep only the first of equal pieces of one split.
        exclude_ids: File of names (one a line, or a JSON list): nothing like these pieces stays in training.
        report_only: Write no folders, only what would be removed.
        workers: Processes; 0 for one a core.
        overwrite: Replace folders that were made differently.
    """
    from midillm_jax.data import dedupe as deduping
    from midillm_jax.data.splits import read_ids

    listed = read_ids(exclude_ids) if exclude_ids else frozenset[str]()
    options = deduping.Options(threshold, within, listed)
    deduping.dedupe(input, out, options, report_only=report_only, overwrite=overwrite, workers=workers)


def inspect(
    shards: tyro.conf.Positional[Path],
    out: Path | None = None,
    examples: int = 3,
    sample: int = 10_000,
    seed: int = 0,
    tokenizer: str | None = None,
) -> None:
    """Prints what a prepared folder holds, and draws its histograms.

    Args:
        shards: The folder.
        out: The PNG to write.
        examples: Records to show.
        sample: Records to read at most; counts and lengths are of all of them.
        seed: Draws the sample and the examples.
        tokenizer: Decodes the examples of a folder of text.
    """
    from midillm_jax.data import inspection

    inspection.inspect(shards, picture=out, examples=examples, sample=sample, seed=seed, tokenizer=tokenizer)


def fetch(name: Annotated[Name, tyro.conf.Positional], out: Path, yes: bool = False, mirror: str = "") -> None:
    """Downloads a published data set: says its size and licence, asks, resumes, and checks what came.

    Args:
        name: Which; GigaMIDI is gated, and you are told how to get it.
        out: Folder to put the files in.
        yes: Go ahead without asking.
        mirror: Another server: for Lakh the address of the folder that holds lmd_full.tar.gz, else a Hub.
    """
    from midillm_jax.data import fetch as fetching

    fetching.fetch(name, out, yes=yes, mirror=mirror)


SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "midi": midi,
    "pairs": pairs,
    "text": text,
    "tokenizer": tokenizer,
    "caption": caption,
    "demo": demo,
    "dedupe": dedupe,
    "inspect": inspect,
    "fetch": fetch,
}


def main(arguments: list[str]) -> None:
    """Parses and calls."""
    prog = "python -m midillm_jax.prepare"
    if arguments and arguments[0] in SUBCOMMANDS:
        chosen = SUBCOMMANDS[arguments[0]]
        # tyro shows the parameters' part of the docstring beside each option.
        summary = (chosen.__doc__ or "").partition("\n\n")[0]
        commands.parse(chosen, arguments[1:], prog=f"{prog} {arguments[0]}", description=summary)
    else:
        tyro.extras.subcommand_cli_from_dict(SUBCOMMANDS, args=arguments, prog=prog, description=__doc__)


if __name__ == "__main__":
    commands.run(main, resumes=sys.argv[1:2] in (["fetch"], ["midi"], ["pairs"], ["text"]))
