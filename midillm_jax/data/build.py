"""Records become shards: one pure function a record, run by local processes or by Apache Beam.

A build has two halves. Blocks of records (data/blocks.py) are prepared by anybody in any order; one process takes them
in order and writes the shards. So the shards depend on the records and the options alone, and a build that was
stopped, however it was, goes on with the blocks that it has. All of it happens in OUT.partial, whose shards are renamed
to OUT when their manifest is written: OUT is whole or absent.
"""

import collections
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from midillm_jax.data.blocks import BlockJob, Finished, blocks_of, digest_again, place_of, read_block
from midillm_jax.data.jobs import Filters, Job, MidiJob, TextJob, cached_tokenizer, compile_reader
from midillm_jax.data.progress import Progress
from midillm_jax.data.records import RECORD_VERSION
from midillm_jax.data.shards import (
    MANIFEST_NAME,
    Kind,
    Manifest,
    ShardWriter,
    SplitName,
    TokenizerId,
    check_files,
    read_manifest,
    write_manifest,
)
from midillm_jax.data.sources import Listing, storage
from midillm_jax.data.splits import SplitRule, stem_of
from midillm_jax.data.workers import run_ordered
from midillm_jax.errors import UserError
from midillm_jax.files import put_in_place, write_whole

_SHOWN_REASONS = 8
"""Kinds of reasons printed at the end; the manifest lists every input that was left out."""
_JOURNAL = "journal.json"


class _NothingUsable(UserError):
    """All records were read, and they will not do: doing it again would change nothing."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done with the records; all that decides the shards besides the records themselves."""

    kind: Kind
    job: Job
    rule: SplitRule
    filters: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: TokenizerId | None = None

    def options(self) -> dict[str, Any]:
        """The part of a manifest that must be equal for a folder to be the one that this plan makes."""
        tokenizer = None if self.tokenizer is None else dataclasses.asdict(self.tokenizer)
        return {
            "kind": self.kind,
            "filters": self.filters,
            "tokenizer": tokenizer,
            "record version": RECORD_VERSION,
            **self.rule.options(),
        }


@dataclasses.dataclass(frozen=True)
class Runner:
    """Who prepares the blocks; the shards are the same whoever does."""

    workers: int = 0
    """Local processes; 0 for one a core."""
    beam: str = ""
    """Apache Beam's runner, such as DirectRunner; empty for local processes."""
    beam_options: tuple[str, ...] = ()
    """Beam's own options, each name=value."""
    staging: str = ""
    """Folder or bucket in which blocks are kept meanwhile, for a runner whose workers do not see OUT.partial."""


def music_plan(listing: Listing, kind: Kind, filters: Filters, rule: SplitRule) -> Plan:
    """MIDI files become pieces. Raises UserError for a filter below zero."""
    for name, bound in dataclasses.asdict(filters).items():
        if bound is not None and bound < 0:
            raise UserError(f"--filters.{name.replace('_', '-')} {bound}: expected a number from 0 up")
    job = MidiJob(filters, compiled=compile_reader(listing.size_bytes))
    return Plan(kind, job, rule, dataclasses.asdict(filters))


def text_plan(tokenizer: str, rule: SplitRule) -> Plan:
    """Documents become token ids of the tokenizer at this path. Raises UserError if there is none."""
    loaded = cached_tokenizer(tokenizer)
    identity = TokenizerId(loaded.fingerprint, loaded.vocab_size)
    return Plan("text", TextJob(tokenizer), rule, tokenizer=identity)


def build(listing: Listing, plan: Plan, out: Path, *, runner: Runner, overwrite: bool) -> Manifest:
    """Writes the shards, the lengths and the manifest; shows progress and prints totals.

    A folder that the same inputs and options made is left as it is, so a script may be run again.

    Args:
        listing: the records.
        plan: what is done with them.
        out: the folder to make.
        runner: who does it.
        overwrite: whether a prepared folder is replaced.

    Raises:
        UserError: nothing usable, or ``out`` is something else.
    """
    _check(plan, out, runner)
    target = Path(os.path.abspath(out))  # even "." then has a name to put .partial after
    partial = target.with_name(target.name + ".partial")
    if _is_made(listing, plan, out, overwrite):
        shutil.rmtree(partial, ignore_errors=True)
        print(f"{out} is there already, made of the same inputs with the same options: nothing to do")
        return read_manifest(out)
    started = time.monotonic()
    # In a folder that others use too, only one of our own is ever emptied or removed.
    staging = storage.join(runner.staging, f"{target.name}.blocks") if runner.staging else str(partial / "blocks")
    _begin(listing, plan, partial, staging)
    try:
        manifest = _write(_blocks(listing, plan, staging, runner), listing, plan, partial / "shards")
        put_in_place(partial / "shards", target)
    except BaseException as error:
        _end(partial, staging, resumable=not isinstance(error, _NothingUsable))
        raise
    storage.remove_folder(staging)
    shutil.rmtree(partial)
    print(summary(manifest, out, time.monotonic() - started))
    return manifest


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
            asked = manifest.inputs["options"]["validation share"] > 0
            lines[-1] = f"{name}: no {things}"
            lines[-1] += " (a larger --validation-share or more files give some)" if asked else ""
    if manifest.rejected:
        lines.append(f"left out: {len(manifest.rejected):,}, all with their reasons in {out / MANIFEST_NAME}")
        # Numbers differ from file to file where the reason is the same.
        alike: dict[str, list[str]] = {}
        for name, reason in manifest.rejected:
            alike.setdefault(re.sub(r"\d[\d.,]*", "#", reason), []).append(f"{name}: {reason}")
        shown = sorted(alike.values(), key=len, reverse=True)
        for group in shown[:_SHOWN_REASONS]:
            lines.append(f"  {group[0]}" + (f"; {len(group) - 1:,} more like it" if len(group) > 1 else ""))
        if rest := sum(map(len, shown[_SHOWN_REASONS:])):
            lines.append(f"  and {rest:,} for other reasons")
    lines.append(f"{out} is ready ({seconds:.1f} s)")
    # Names that are no valid UTF-8 must not break the very line that reports them.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _check(plan: Plan, out: Path, runner: Runner) -> None:
    """Raises UserError where an option cannot be."""
    share = plan.rule.validation_share
    if not 0 <= share < 1:
        raise UserError(f"--validation-share {share}: expected a share from 0 up to, but not, 1")
    if runner.workers < 0:
        raise UserError(f"--workers {runner.workers}: expected a number of processes, or 0 for one a core")
    if not runner.beam and (runner.staging or runner.beam_options):
        option = "--staging" if runner.staging else "--beam-options"
        raise UserError(f"{option} is for Apache Beam; add --runner, such as --runner DirectRunner, or leave it out")
    if re.match(r"\w+:/", str(out)):
        url = re.sub(":/+", "://", str(out))  # a path has no double slash
        raise UserError(
            f"--out {url}: shards are written to a folder of this machine; name one, and copy it when it is ready, for "
            "instance with `gcloud storage cp --recursive`"
        )


def _begin(listing: Listing, plan: Plan, partial: Path, staging: str) -> None:
    """Makes OUT.partial, or takes one that an earlier run of the same build left."""
    journal = json.dumps({"options": plan.options(), "inputs": listing.version(), "staging": staging}, indent=1)
    file = partial / _JOURNAL
    if file.is_file() and file.read_text() == journal:
        done = len(storage.files_below(staging, ("",))) if storage.is_folder(staging) else 0
        if done:
            print(f"{partial}: an earlier run left {done:,} finished blocks; going on from there", file=sys.stderr)
    else:
        if file.is_file():
            print(f"{partial}: an earlier run had other inputs or options; beginning anew", file=sys.stderr)
        shutil.rmtree(partial, ignore_errors=True)
        storage.remove_folder(staging)
        partial.mkdir(parents=True)
        storage.make_folder(staging)
        write_whole(file, journal)
    shutil.rmtree(partial / "shards", ignore_errors=True)


def _end(partial: Path, staging: str, *, resumable: bool) -> None:
    """After a failure: keeps OUT.partial where it holds blocks to go on from."""
    shutil.rmtree(partial / "shards", ignore_errors=True)
    if not (resumable and storage.is_folder(staging) and storage.files_below(staging, ("",))):
        storage.remove_folder(staging)
        shutil.rmtree(partial, ignore_errors=True)


def _blocks(listing: Listing, plan: Plan, staging: str, runner: Runner) -> Iterator[tuple[int, Finished]]:
    """(part, block) in order, each as soon as it and all before it are there."""
    job = BlockJob(plan.job, plan.rule, staging)
    if runner.beam:
        from midillm_jax.data.beam import make_blocks

        make_blocks(listing, job, runner.beam, runner.beam_options)
        for part in range(len(listing.parts)):
            number, last = 0, False
            while not last:
                block = read_block(place_of(staging, part, number))
                yield part, block
                number, last = number + 1, block.last
        return
    tasks = (block for part in range(len(listing.parts)) for block in blocks_of(listing, part, staging))
    part = 0
    for place in run_ordered(job, tasks, runner.workers or os.cpu_count() or 1):
        block = read_block(place)
        yield part, block
        part += block.last


def _write(blocks: Iterator[tuple[int, Finished]], listing: Listing, plan: Plan, folder: Path) -> Manifest:
    sources: collections.Counter[str] = collections.Counter()
    rejected: list[tuple[str, str]] = []
    inputs = _InputDigest(listing)
    names: set[str] = set()
    listed: set[str] = set()
    with ExitStack() as stack:
        always: tuple[SplitName, ...] = ("train", "validation")
        writers = {name: stack.enter_context(ShardWriter(folder, name)) for name in always}
        progress = stack.enter_context(Progress(listing.size_bytes, listing.things))
        for part, block in blocks:
            for entry in block.entries:
                inputs.add(part, entry.digest)
                if listing.captions is not None:
                    names.add(entry.name)
                if stem_of(entry.name) in plan.rule.test_ids:
                    listed.add(stem_of(entry.name))
                if entry.reason:
                    rejected.append((entry.name, entry.reason))
                    continue
                if entry.side not in writers:  # no rule but Lakh's and a list of ids makes a test split
                    writers[entry.side] = stack.enter_context(ShardWriter(folder, entry.side))
                writers[entry.side].write(entry.packed, entry.length)
                sources[entry.source] += 1
            failed = sum(bool(entry.reason) for entry in block.entries)
            progress.add(records=len(block.entries), amount=block.amount, rejected=failed)
        rejected += listing.missing(names)
        if not sources:
            raise _NothingUsable(_nothing_usable(rejected, listing))
        _check_test_pieces(plan.rule, listed, "test" in writers)
    manifest = Manifest(
        kind=plan.kind,
        splits={name: writer.split for name, writer in writers.items()},
        sources=dict(sorted(sources.items())),
        rejected=tuple(rejected),
        filters=plan.filters,
        inputs={"options": plan.options(), "digest": inputs.hexdigest()},
        tokenizer=plan.tokenizer,
    )
    write_manifest(folder, manifest)
    return manifest


def _check_test_pieces(rule: SplitRule, listed: set[str], made: bool) -> None:
    """Raises where a rule that is to hold out pieces for testing met none: they would be trained on unnoticed."""
    if rule.by == "midicaps" and not made:
        raise _NothingUsable(
            "--split midicaps goes by the column test_set of the captions, and none of the pieces has it true; use "
            "--split hash, lakh or auto"
        )
    if rule.test_ids and not listed:
        raise _NothingUsable(
            f"--test-ids: none of its {len(rule.test_ids):,} names (such as {min(rule.test_ids)}) is that of a file "
            "here; expected names of files without folder and suffix"
        )
    if rule.test_ids:
        print(f"test ids: {len(listed):,} of {len(rule.test_ids):,} are here")


def _nothing_usable(rejected: list[tuple[str, str]], listing: Listing) -> str:
    if not rejected:
        holds = "nothing but white space" if listing.things == "documents" else "no MIDI file"
        return f"the input holds {holds}; give files with something in them"
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
    manifest = read_manifest(out)
    made = manifest.inputs
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
    for split in manifest.splits.values():
        check_files(out, split)
    return True


def _digest_of(listing: Listing) -> str:
    inputs = _InputDigest(listing)
    for number, part in enumerate(listing.parts):
        if part.content() is None:
            for record in part:
                inputs.add(number, digest_again(record))
    return inputs.hexdigest()


class _InputDigest:
    """One hash over everything that the parts of a listing hold, in their order."""

    def __init__(self, listing: Listing) -> None:
        self._parts = [part.content() for part in listing.parts]
        self._records = [hashlib.sha256() for _ in listing.parts]
        self._missing = listing.missing(()) if None in self._parts else []

    def add(self, part: int, digest: str) -> None:
        """Counts a record in, unless its part speaks for all of them."""
        if self._parts[part] is None:
            self._records[part].update(digest.encode())

    def hexdigest(self) -> str:
        pairs = zip(self._parts, self._records, strict=True)
        whole = [records.hexdigest() if content is None else content for content, records in pairs]
        return hashlib.sha256(json.dumps([whole, self._missing]).encode()).hexdigest()
