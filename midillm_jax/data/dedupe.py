"""Prepared folders without the pieces that another folder, or a held-out split, has already.

Pieces are compared across folders and splits (data/fingerprints.py). Of two that are the same music the one of lower
rank is removed: an earlier folder outranks a later one, and within a folder test outranks validation, and validation
train. So the folder of the last stage comes first, and what is held out of it is not trained on in the stage before.
A removed piece removes nothing itself.

    OUT/removed.jsonl    one line a removed piece: which, why, how similar, and which piece it equals
    OUT/<folder>/        a prepared folder, its records copied as they were, in their order
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from midillm_jax.data.fingerprints import (
    BANDS,
    INTERVALS,
    LEAST_SHINGLES,
    ROWS,
    TOGETHER_TICKS,
    Index,
    fingerprint,
)
from midillm_jax.data.parts import RANKED, Parts, Place, marked, pieces
from midillm_jax.data.progress import Progress
from midillm_jax.data.shards import (
    MANIFEST_NAME,
    Manifest,
    ShardWriter,
    Split,
    SplitName,
    open_split,
    read_manifest,
    write_manifest,
)
from midillm_jax.data.splits import stem_of
from midillm_jax.data.workers import run_ordered
from midillm_jax.errors import UserError
from midillm_jax.files import put_in_place, write_whole

REPORT_NAME = "removed.jsonl"
Reason = Literal["listed", "exact", "near"]
REASONS: tuple[Reason, ...] = ("listed", "exact", "near")
_VERSION = 1
"""Raised when other pieces come to be removed, so that an older folder is not taken for the new."""
_BATCH = 64
_PIECES_A_PROCESS = 2_000
"""A process pays from about this many pieces on: starting it takes as long."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is taken for the same piece."""

    threshold: float
    """Least similarity (above 0, up to 1) of near duplicates."""
    within: bool
    """Whether the second of two equal pieces of one split goes too."""
    listed: frozenset[str]
    """Names of files, without folder and suffix, that are evaluated on wherever they stand: nothing like them is
    trained on."""


@dataclasses.dataclass(frozen=True)
class Removed:
    """A piece that is left out, and the one that stays in its place (None for a listed piece)."""

    place: Place
    name: str
    piece_id: str
    source: str
    reason: Reason
    similarity: float
    equals: Place | None


def dedupe(
    folders: Sequence[Path],
    out: Path,
    options: Options,
    *,
    report_only: bool = False,
    overwrite: bool = False,
    workers: int = 1,
) -> list[Removed]:
    """Writes ``out/removed.jsonl`` and, unless it is only to report, ``out/<folder>`` for each; prints a table.

    Folders that the same inputs and options made are left as they are.

    Args:
        folders: prepared folders of music, the most important first.
        out: folder to write into.
        options: what is taken for the same.
        report_only: whether to write no folders.
        overwrite: whether folders in ``out`` that were made differently are replaced.
        workers: processes; 0 for one a core, and fewer where there are few pieces.

    Raises:
        UserError: a folder that holds no music or is not prepared, two of one name, an ``out`` that would replace an
            input, or that holds something else.
    """
    if not 0 < options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: expected a similarity above 0 and up to 1")
    if workers < 0:
        raise UserError(f"--workers {workers}: expected a number of processes, or 0 for one a core")
    manifests = [_read(folder) for folder in folders]
    names = _names(folders, out)
    inputs = _inputs(names, manifests, options)
    made = [_is_made(out / name, document, overwrite) for name, document in zip(names, inputs, strict=True)]
    if all(made) and (out / REPORT_NAME).is_file():
        print(f"{out} is there already, made of the same folders with the same options: nothing to do")
        return []
    started = time.monotonic()
    parts = Parts(folders, manifests)
    removed = find(parts, options, workers)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / REPORT_NAME, "".join(_line(parts, names, one) + "\n" for one in removed))
    if not report_only:
        for number, name in enumerate(names):
            if not made[number]:
                dropped = [one for one in removed if parts.folder_of[one.place.part] == number]
                _write(folders[number], manifests[number], out / name, dropped, parts, inputs[number])
    print(table(parts, names, removed))
    done = "nothing was written besides the report" if report_only else "the folders are ready"
    print(f"{out / REPORT_NAME} lists what was removed; {done} ({time.monotonic() - started:.1f} s)")
    return removed


def find(parts: Parts, options: Options, workers: int) -> list[Removed]:
    """The pieces to remove, by rank and then in order; the same ones whatever the number of processes."""
    ranked: Index[Place] = Index(options.threshold, parts.fingerprint)
    evaluated = _evaluated(parts, options)
    total = sum(map(len, parts.readers))
    workers = min(workers or os.cpu_count() or 1, 1 + total // _PIECES_A_PROCESS)
    removed: list[Removed] = []
    part, higher = -1, 0
    with Progress(total, "pieces", "removed") as progress:
        for batch in run_ordered(marked, parts.batches(), workers):
            before = len(removed)
            for piece in batch:
                if piece.place.part != part:
                    part, higher = piece.place.part, len(ranked)
                trains = parts.readers[part].name == "train"
                if trains and stem_of(piece.name) in options.listed:
                    removed.append(Removed(piece.place, piece.name, piece.piece_id, piece.source, "listed", 1.0, None))
                    continue
                match = evaluated.find(piece.mark) if trains else None
                match = match or ranked.find(piece.mark, None if options.within else higher)
                if match is not None:
                    found = match.reason, match.similarity, match.place
                    removed.append(Removed(piece.place, piece.name, piece.piece_id, piece.source, *found))
                elif options.within or part < len(parts.readers) - 1:  # only what can win need be kept
                    ranked.add(piece.place, piece.mark)
            progress.add(records=len(batch), amount=len(batch), rejected=len(removed) - before)
    return removed


def table(parts: Parts, names: Sequence[str], removed: Sequence[Removed]) -> str:
    """Pieces of each folder and split, how many were removed for which reason, and how many stay."""
    counts = collections.Counter((one.place.part, one.reason) for one in removed)
    rows = [("folder", "split", "pieces", *REASONS, "kept")]
    for part, reader in enumerate(parts.readers):
        gone = [counts[part, reason] for reason in REASONS]
        numbers = [len(reader), *gone, len(reader) - sum(gone)]
        rows.append((names[parts.folder_of[part]], reader.name, *(f"{number:,}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _evaluated(parts: Parts, options: Options) -> Index[Place]:
    """The listed pieces, wherever they stand."""
    index: Index[Place] = Index(options.threshold, parts.fingerprint)
    if options.listed:
        for place, piece in itertools.chain.from_iterable(map(pieces, parts.batches())):
            if stem_of(piece.name) in options.listed:
                index.add(place, fingerprint(piece.notes))
        print(f"{len(index):,} pieces bear one of the {len(options.listed):,} listed names")
    return index


def _read(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest.kind == "text":
        raise UserError(f"{folder} holds text; expected folders made by `prepare midi` or `prepare pairs`")
    return manifest


def _names(folders: Sequence[Path], out: Path) -> list[str]:
    """What the folders are called in ``out``: as they are called now."""
    names = [folder.resolve().name for folder in folders]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"two folders are called {twice[0]}, which would be one folder in {out}; rename one of them")
    for folder, name in zip(folders, names, strict=True):
        if (out / name).resolve() == folder.resolve():
            raise UserError(f"{out} holds {folder} itself; give another --out")
    return names


def _inputs(names: Sequence[str], manifests: Sequence[Manifest], options: Options) -> list[dict[str, Any]]:
    """What each new folder is made from, for its manifest: all folders, as each may remove pieces of a later one."""
    settings = {
        "version": _VERSION,
        "threshold": options.threshold,
        "within": options.within,
        "listed": hashlib.sha256("\n".join(sorted(options.listed)).encode("utf-8", "surrogateescape")).hexdigest(),
        "shingles": [INTERVALS, TOGETHER_TICKS, LEAST_SHINGLES],
        "index": [BANDS, ROWS],
    }
    folders = [
        {split: [shard.sha256 for shard in manifest.splits[split].shards] for split in sorted(manifest.splits)}
        for manifest in manifests
    ]
    everything = {"options": settings, "folders": dict(zip(names, folders, strict=True)), "order": list(names)}
    return [
        {"deduplicated": everything, "folder": name, "prepared": manifest.inputs}
        for name, manifest in zip(names, manifests, strict=True)
    ]


def _is_made(folder: Path, inputs: dict[str, Any], overwrite: bool) -> bool:
    """Whether a folder is what would be written. False when it may be written; a UserError when it may not."""
    if not folder.exists():
        return False
    if not (folder / MANIFEST_NAME).is_file():
        raise UserError(
            f"{folder} exists and was not made by `python -m midillm_jax.prepare` (no {MANIFEST_NAME} in it); give "
            "another --out"
        )
    if read_manifest(folder).inputs == inputs:
        return True
    if not overwrite:
        raise UserError(
            f"{folder} exists and was made of other folders or with other options; give another --out, or --overwrite "
            "to replace it"
        )
    return False


def _line(parts: Parts, names: Sequence[str], one: Removed) -> str:
    document: dict[str, Any] = {
        **_where(parts, names, one.place),
        "name": one.name,
        "piece_id": one.piece_id,
        "reason": one.reason,
        "similarity": round(one.similarity, 4),
        "equals": None,
    }
    if one.equals is not None:
        equal = parts.piece(one.equals)
        document["equals"] = {
            **_where(parts, names, one.equals),
            "name": equal.name,
            "piece_id": equal.piece_id,
        }
    return json.dumps(document)


def _where(parts: Parts, names: Sequence[str], place: Place) -> dict[str, str]:
    return {"folder": names[parts.folder_of[place.part]], "split": parts.readers[place.part].name}


def _write(
    source: Path, manifest: Manifest, target: Path, dropped: Sequence[Removed], parts: Parts, inputs: dict[str, Any]
) -> None:
    """Copies a prepared folder without some of its records; it has its name only when it is whole."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    sources = collections.Counter(manifest.sources)
    sources.subtract(one.source for one in dropped)
    try:
        splits: dict[str, Split] = {}
        for split in reversed(RANKED):
            if split in manifest.splits:
                gone = {one.place.record for one in dropped if parts.readers[one.place.part].name == split}
                splits[split] = _copy(source, manifest, split, partial, gone)
        kept = {name: count for name, count in sources.items() if count}
        write_manifest(partial, dataclasses.replace(manifest, splits=splits, sources=kept, inputs=inputs))
        put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(source: Path, manifest: Manifest, split: SplitName, target: Path, gone: Collection[int]) -> Split:
    with ShardWriter(target, split) as writer:
        if manifest.splits[split].records:
            reader = open_split(source, split)
            stays = [record for record in range(len(reader)) if record not in gone]
            for start in range(0, len(stays), _BATCH):
                records = stays[start : start + _BATCH]
                for record, packed in zip(records, reader.__getitems__(records), strict=True):
                    writer.write(packed, int(reader.lengths[record]))
    return writer.split
