"""Records become shards: one pure function a record, run by local processes, written in the records' order.

The shards depend on the records and the options alone, never on how many processes made them. A folder is built as
OUT.partial and renamed when its manifest is written, so OUT is whole or absent.
"""

import collections
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from midillm_jax.data.jobs import (
    Filters,
    Job,
    MidiJob,
    TextJob,
    cached_tokenizer,
    content_digest,
    unreadable,
)
from midillm_jax.data.records import RECORD_VERSION
from midillm_jax.data.shards import (
    MANIFEST_NAME,
    Kind,
    Manifest,
    ShardWriter,
    SplitName,
    TokenizerId,
    read_manifest,
    write_manifest,
)
from midillm_jax.data.sources import Listing, Record
from midillm_jax.data.workers import run_ordered
from midillm_jax.errors import UserError

_SPLIT_VERSION = 2
"""Raised when records come to fall on other sides of the split, so that an older folder is not taken for the new."""
_COMPILE_FROM = 500
"""Files from which compiling the MIDI reader pays."""
_LINE_SECONDS = 5.0
"""Time between progress lines where there is no terminal."""
_SHOWN_REJECTS = 5
"""Left-out inputs printed at the end; the manifest lists all."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done with the records; all that decides the shards besides the records themselves."""

    kind: Kind
    job: Job
    validation_share: float
    """Share of groups (0 up to, but not, 1) held out."""
    filters: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: TokenizerId | None = None

    def options(self) -> dict[str, Any]:
        """The part of a manifest that must be equal for a folder to be the one that this plan makes."""
        tokenizer = None if self.tokenizer is None else dataclasses.asdict(self.tokenizer)
        return {
            "kind": self.kind,
            "validation share": self.validation_share,
            "split version": _SPLIT_VERSION,
            "filters": self.filters,
            "tokenizer": tokenizer,
            "record version": RECORD_VERSION,
        }


def music_plan(listing: Listing, kind: Kind, filters: Filters, validation_share: float) -> Plan:
    """MIDI files become pieces."""
    job = MidiJob(filters, compiled=listing.total >= _COMPILE_FROM)
    return Plan(kind, job, validation_share, dataclasses.asdict(filters))


def text_plan(tokenizer: str, validation_share: float) -> Plan:
    """Documents become token ids of the tokenizer at this path. Raises UserError if there is none."""
    loaded = cached_tokenizer(tokenizer)
    identity = TokenizerId(loaded.fingerprint, loaded.vocab_size)
    return Plan("text", TextJob(tokenizer), validation_share, tokenizer=identity)


def build(listing: Listing, plan: Plan, out: Path, *, workers: int, overwrite: bool) -> Manifest:
    """Writes the shards, the lengths and the manifest; shows progress and prints totals.

    A folder that the same inputs and options made is left as it is, so a script may be run again.

    Args:
        listing: the records.
        plan: what is done with them.
        out: the folder to make.
        workers: processes; 0 for one a core.
        overwrite: whether a prepared folder is replaced.

    Raises:
        UserError: nothing usable, or ``out`` is something else.
    """
    if not 0 <= plan.validation_share < 1:
        raise UserError(f"--validation-share {plan.validation_share}: expected a share from 0 up to, but not, 1")
    if workers < 0:
        raise UserError(f"--workers {workers}: expected a number of processes, or 0 for one a core")
    if _is_made(listing, plan, out, overwrite):
        print(f"{out} is there already, made of the same inputs with the same options: nothing to do")
        return read_manifest(out)
    started = time.monotonic()
    target = Path(os.path.abspath(out))  # even "." then has a name to put .partial after
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifest = _write(listing, plan, partial, workers or os.cpu_count() or 1)
        _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(summary(manifest, out, time.monotonic() - started))
    return manifest


def split_of(group: str, validation_share: float) -> SplitName:
    """The side a group falls on: a matter of its name alone, not of order or of what else there is."""
    drawn = int.from_bytes(hashlib.sha256(b"split:" + _bytes(group)).digest()[:8], "big")
    return "validation" if drawn < validation_share * 2**64 else "train"


def summary(manifest: Manifest, out: Path, seconds: float) -> str:
    """Totals of a build, for the person."""
    things, parts = ("documents", "tokens") if manifest.kind == "text" else ("pieces", "notes")
    lines = []
    for name, split in manifest.splits.items():
        stored = sum(shard.bytes for shard in split.shards)
        each = f" ({stored / split.size:.2f} bytes a {parts[:-1]})" if split.size else ""
        lines.append(
            f"{name}: {split.records:,} {things}, {split.size:,} {parts}; shards: {len(split.shards)}, "
            f"{stored:,} bytes{each}"
        )
        if not split.records:
            lines[-1] = f"{name}: no {things} (a larger --validation-share or more files give some)"
    if manifest.rejected:
        lines.append(f"left out: {len(manifest.rejected):,}, all with their reasons in {out / MANIFEST_NAME}")
        lines += [f"  {name}: {reason}" for name, reason in manifest.rejected[:_SHOWN_REJECTS]]
        if len(manifest.rejected) > _SHOWN_REJECTS:
            lines.append(f"  and {len(manifest.rejected) - _SHOWN_REJECTS:,} more")
    lines.append(f"{out} is ready ({seconds:.1f} s)")
    # Names that are no valid UTF-8 must not break the very line that reports them.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _write(listing: Listing, plan: Plan, folder: Path, workers: int) -> Manifest:
    sources: collections.Counter[str] = collections.Counter()
    rejected: list[tuple[str, str]] = []
    inputs = _InputDigest(listing)
    names: tuple[SplitName, ...] = ("train", "validation")
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ShardWriter(folder, name)) for name in names}
        progress = stack.enter_context(_Progress(listing))
        for record, outcome in run_ordered(plan.job, listing.records, workers):
            inputs.add(record, outcome.digest)
            progress.add(record.amount, outcome.packed is None)
            if outcome.packed is None:
                rejected.append((record.name, outcome.reason))
                continue
            side = split_of(record.group or outcome.group, plan.validation_share)
            writers[side].write(outcome.packed, outcome.length)
            sources[record.source] += 1
        if not sources:
            raise UserError(_nothing_usable([*rejected, *listing.unmatched]))
    manifest = Manifest(
        kind=plan.kind,
        splits={name: writer.split for name, writer in writers.items()},
        sources=dict(sorted(sources.items())),
        rejected=(*rejected, *listing.unmatched),
        filters=plan.filters,
        inputs={"options": plan.options(), "digest": inputs.hexdigest()},
        tokenizer=plan.tokenizer,
    )
    write_manifest(folder, manifest)
    return manifest


def _nothing_usable(rejected: list[tuple[str, str]]) -> str:
    if not rejected:
        return "the input holds nothing but white space; give files with something in them"
    name, reason = rejected[0]
    text = f"nothing was usable, of {len(rejected):,} inputs; the first, {name}: {reason}"
    return text.encode("utf-8", "backslashreplace").decode()


def _is_made(listing: Listing, plan: Plan, out: Path, overwrite: bool) -> bool:
    """Whether ``out`` is what would be built. False when it may be built; a UserError when it may not."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST_NAME).is_file():
        raise UserError(
            f"{out} exists and was not made by `python -m midillm_jax.prepare` (no {MANIFEST_NAME} in it); give "
            "another --out"
        )
    if overwrite:
        return False
    made = read_manifest(out).inputs
    if made.keys() != {"options", "digest"}:
        raise UserError(f"{out} was made by another program; give another --out, or --overwrite to replace it")
    now = plan.options()
    differs = sorted(name for name in now.keys() | made["options"] if now.get(name) != made["options"].get(name))
    if not differs and made["digest"] != _digest_of(listing):
        differs = ["input files"]
    if differs:
        raise UserError(
            f"{out} exists and was made differently ({', '.join(differs)}); give another --out, or --overwrite to "
            "replace it"
        )
    return True


def _digest_of(listing: Listing) -> str:
    inputs = _InputDigest(listing)
    for record in listing.records:
        try:
            digest = content_digest(record.read())
        except OSError as error:
            digest = unreadable(error).digest
        inputs.add(record, digest)
    return inputs.hexdigest()


def _put_in_place(partial: Path, out: Path) -> None:
    if not out.exists():
        os.replace(partial, out)
        return
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old)


class _InputDigest:
    """One hash over everything that the records of a listing hold, in their order."""

    def __init__(self, listing: Listing) -> None:
        self._hash = hashlib.sha256(_bytes(json.dumps(listing.unmatched)))

    def add(self, record: Record, digest: str) -> None:
        fields = [record.source, record.name, record.captions, record.group, digest]
        self._hash.update(_bytes(json.dumps(fields)) + b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Progress:
    """A live bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._done = self._rejected = 0
        self._started = self._said = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=listing.total)

    def add(self, amount: int, rejected: bool) -> None:
        self._done += amount
        self._rejected += rejected
        now = time.monotonic()
        if self._bar.disable:
            if now - self._said >= _LINE_SECONDS:
                self._said = now
                print(self._line(now), file=sys.stderr, flush=True)
        else:
            self._bar.update(self._task, completed=self._done, description=self._line(now))

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._started, 1e-9)
        unit = self._listing.unit
        return f"{self._done:,} of {self._listing.total:,} {unit}, {rate:,.0f} {unit}/s, {self._rejected:,} rejected"

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
