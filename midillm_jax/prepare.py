"""``python -m midillm_jax.prepare``: files become shards that training reads.

midi: a folder of MIDI files; pairs: MIDI files with captions; text: text files; tokenizer: learns a vocabulary;
caption: writes captions of MIDI files; demo: writes a small made-up corpus; fetch: downloads a published data set.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from midillm_jax import commands
from midillm_jax.data.band.compose import Profile
from midillm_jax.data.fetch import Name
from midillm_jax.data.jobs import Filters

Globs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="GLOB ...")]
Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR|FILE ...")]

_NO_FILTERS = Filters()


def midi(
    input: Path,
    out: Path,
    filters: Filters = _NO_FILTERS,
    validation_share: float = 0.05,
    exclude: Globs = (),
    source: str = "",
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """MIDI files become shards.

    Args:
        input: Folder searched recursively for .mid, .midi and .kar files.
        out: Folder to make.
        filters: Pieces to leave out.
        validation_share: Share of pieces held out, by a hash of each piece's notes, or of its group if it has one.
        exclude: Patterns on file or folder names to leave out.
        source: Name of the data set; the input folder's name if empty.
        workers: Processes; 0 for one a core.
        overwrite: Replace a prepared folder that was made differently.
    """
    from midillm_jax.data import build, sources

    listing = sources.midi_folder(input, source=source, exclude=exclude)
    plan = build.music_plan(listing, "midi", filters, validation_share)
    build.build(listing, plan, out, workers=workers, overwrite=overwrite)


def pairs(
    input: Path,
    out: Path,
    midi: Path | None = None,
    filters: Filters = _NO_FILTERS,
    validation_share: float = 0.05,
    exclude: Globs = (),
    source: str = "",
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Captioned MIDI files become shards.

    Args:
        input: captions.jsonl or a folder that holds it: one JSON object a line with location and caption.
        out: Folder to make.
        midi: Folder that locations are relative to; the input's own if not given.
        filters: Pieces to leave out.
        validation_share: Share of pieces held out, by a hash of each piece's notes, or of its group if it has one.
        exclude: Patterns on file or folder names to leave out.
        source: Name of the data set; the folder's name if empty.
        workers: Processes; 0 for one a core.
        overwrite: Replace a prepared folder that was made differently.
    """
    from midillm_jax.data import build, sources

    listing = sources.captioned_folder(input, midi=midi, source=source, exclude=exclude)
    plan = build.music_plan(listing, "pairs", filters, validation_share)
    build.build(listing, plan, out, workers=workers, overwrite=overwrite)


def text(
    input: Paths,
    tokenizer: str,
    out: Path,
    document_bytes: int = 16_384,
    validation_share: float = 0.05,
    exclude: Globs = (),
    source: str = "",
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Text files become shards of token ids.

    Args:
        input: Text files, or folders searched recursively for them.
        tokenizer: A sentencepiece .model, a Hugging Face tokenizer.json, or a folder that holds one.
        out: Folder to make.
        document_bytes: Files are cut between paragraphs into documents of at most this many bytes.
        validation_share: Share of documents held out, by a hash of each file (each document below 20 files).
        exclude: Patterns on file or folder names to leave out.
        source: Name of the data set; the names of the inputs if empty.
        workers: Processes; 0 for one a core.
        overwrite: Replace a prepared folder that was made differently.
    """
    from midillm_jax.data import build, sources

    listing = sources.text_files(input, source=source, exclude=exclude, document_bytes=document_bytes)
    plan = build.text_plan(tokenizer, validation_share)
    build.build(listing, plan, out, workers=workers, overwrite=overwrite)


def tokenizer(input: Paths, vocab_size: int, out: Path, exclude: Globs = ()) -> None:
    """Learns a sentencepiece vocabulary from text files.

    Args:
        input: Text files, or folders searched recursively for them.
        vocab_size: Pieces to learn, exactly.
        out: The .model file to write.
        exclude: Patterns on file or folder names to leave out.
    """
    from midillm_jax.data import sources
    from midillm_jax.text.tokenizer import train_sentencepiece

    texts = sources.read_texts(input, exclude=exclude)
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


def caption(input: Path, out: Path, manifest: Path | None = None, exclude: Globs = (), seed: int = 0) -> None:
    """Writes captions of what is plainly in MIDI files: instruments, tempo, drums, length.

    Args:
        input: Folder searched recursively for MIDI files.
        out: The captions.jsonl to write.
        manifest: Table (TSV) with a row a file, for what the files do not say, such as genre.
        exclude: Patterns on file or folder names to leave out.
        seed: Draws the wording.
    """
    from midillm_jax.data.captioning import caption_folder

    caption_folder(input, out, manifest=manifest, exclude=exclude, seed=seed)


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
    commands.run(main, resumes=sys.argv[1:2] == ["fetch"])
