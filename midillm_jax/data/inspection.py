"""What a prepared folder holds, in words: counts, sizes, lengths, instruments, tempos, captions, and a few records.

Counts, sizes and lengths come from the manifest and the lengths, so they are of the whole folder. What the records
themselves say is of a sample, drawn with a seed from all splits, where the folder has more records than that.
"""

import collections
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from midillm_jax.data.shards import (
    Manifest,
    Piece,
    SplitName,
    SplitReader,
    TextRecord,
    open_split,
    read_manifest,
    unpack_piece,
    unpack_text,
)
from midillm_jax.data.summary import Music, main_bpm, main_meter, sound
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole
from midillm_jax.music.amt import encode_notes
from midillm_jax.music.instruments import PROGRAM_NAMES
from midillm_jax.music.vocab import MAX_DURATION_TICKS, PITCHES, TICKS_PER_SECOND
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer

_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_QUANTILE_NAMES = ("least", "5 %", "median", "95 %", "most")
_TOP = 10
_BATCH = 64
_SHOWN_NOTES = 6
_SHOWN_TRIPLES = 4
_SHOWN_CHARACTERS = 400


def inspect(
    folder: Path, *, picture: Path | None, examples: int, sample: int, seed: int, tokenizer: str | None
) -> None:
    """Prints what a prepared folder holds and draws its histograms.

    Args:
        folder: made by ``prepare``.
        picture: the PNG to write, if any.
        examples: records to show.
        sample: records to read at most.
        seed: draws the sample and the examples.
        tokenizer: decodes text records; None shows their ids.

    Raises:
        UserError: not a prepared folder, an empty one, or another tokenizer than it was made with.
    """
    if sample < 1 or examples < 0:
        raise UserError(f"--sample {sample} --examples {examples}: expected at least 1 and at least 0")
    manifest = read_manifest(folder)
    decoder = None if tokenizer is None else load_tokenizer(tokenizer)
    readers = _readers(folder, manifest, decoder)
    total = sum(map(len, readers))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(total)[:sample])
    shown = _records(readers, np.sort(rng.permutation(chosen)[:examples]))
    lengths = np.concatenate([reader.lengths for reader in readers])
    read = f"all {total:,}" if len(chosen) == total else f"{len(chosen):,} of {total:,}, drawn with seed {seed}"
    _say(_counts(folder, manifest))
    if manifest.tokenizer is not None:
        used: np.ndarray = np.zeros(manifest.tokenizer.vocab_size, np.int64)
        for _, packed in _records(readers, chosen):
            used += np.bincount(unpack_text(packed).ids, minlength=len(used))
        _say([f"documents read: {read}", "", *_texts(lengths, used)])
        for where, packed in shown:
            _say(_document(where, unpack_text(packed), decoder))
    else:
        music = Music()
        for _, packed in _records(readers, chosen):
            music.add(unpack_piece(packed))
        _say([f"pieces read: {read}", "", *_music(music, lengths)])
        for where, packed in shown:
            _say(_example(where, unpack_piece(packed)))
    if picture is not None:
        from midillm_jax.data import histograms

        stream = io.BytesIO()
        title = folder.resolve().name
        if manifest.tokenizer is not None:
            histograms.draw_text(lengths, used, f"{title}: {total:,} documents", read, stream)
        else:
            histograms.draw_music(music, lengths, f"{title}: {total:,} pieces", read, stream)
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_whole(picture, stream.getvalue())
        print(f"{picture} is ready")


def _readers(folder: Path, manifest: Manifest, decoder: Tokenizer | None) -> list[SplitReader]:
    """The splits that hold anything."""
    fingerprint = decoder.fingerprint if decoder is not None and manifest.kind == "text" else None
    readers = [
        open_split(folder, name, fingerprint=fingerprint)
        for name in _SPLITS
        if name in manifest.splits and manifest.splits[name].records
    ]
    if not readers:
        raise UserError(f"{folder} holds no records: prepare it from more files")
    return readers


def _records(readers: Sequence[SplitReader], numbers: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Where a record stands, and its bytes, of records numbered through all splits, in order."""
    first = 0
    for reader in readers:
        own = numbers[(numbers >= first) & (numbers < first + len(reader))] - first
        for start in range(0, len(own), _BATCH):
            batch = own[start : start + _BATCH].tolist()
            for record, packed in zip(batch, reader.__getitems__(batch), strict=True):
                yield f"{reader.name} {record:,}", packed
        first += len(reader)


def _say(lines: Sequence[str]) -> None:
    # Names that are no valid UTF-8 must not break the report.
    print("\n".join([*lines, ""]).encode("utf-8", "backslashreplace").decode())


def _counts(folder: Path, manifest: Manifest) -> list[str]:
    things, parts = ("documents", "tokens") if manifest.kind == "text" else ("pieces", "notes")
    rows: list[tuple[str, ...]] = [("split", things, parts, "bytes", f"bytes a {parts[:-1]}", "shards")]
    for name, split in manifest.splits.items():
        stored = sum(shard.bytes for shard in split.shards)
        each = f"{stored / split.size:.2f}" if split.size else "-"
        numbers = (f"{number:,}" for number in (split.records, split.size, stored))
        rows.append((name, *numbers, each, f"{len(split.shards):,}"))
    sources = [f"{name} {count:,}" for name, count in collections.Counter(manifest.sources).most_common(_TOP)]
    if len(manifest.sources) > _TOP:
        sources.append(f"and {len(manifest.sources) - _TOP:,} more")
    lines = [f"{folder}, made by `prepare {manifest.kind}`", "", *_table(rows), "", f"sources: {', '.join(sources)}"]
    in_force = {name: value for name, value in manifest.filters.items() if value}
    if manifest.kind != "text":
        named = ", ".join(f"{name} {value:g}" for name, value in in_force.items())
        lines.append(f"filters: {named or 'none'}")
    lines.append(f"left out: {len(manifest.rejected):,}")
    # Numbers differ from file to file where the reason is the same.
    reasons = collections.Counter(re.sub(r"\d[\d.,]*", "#", reason) for _, reason in manifest.rejected)
    lines += [f"  {count:,}  {reason}" for reason, count in reasons.most_common(_TOP)]
    if len(reasons) > _TOP:
        lines.append(f"  {sum(reasons.values()) - sum(n for _, n in reasons.most_common(_TOP)):,}  for other reasons")
    return lines


def _music(music: Music, lengths: np.ndarray) -> list[str]:
    count = len(music.notes)
    seconds, notes = np.array(music.seconds), np.array(music.notes)
    rows: list[tuple[str, ...]] = [
        ("", *_QUANTILE_NAMES, "mean"),
        ("notes a piece (all)", *_quantiles(lengths)),
        ("seconds", *_quantiles(seconds)),
        ("notes a second", *_quantiles(notes / np.maximum(seconds, 0.01), 1)),
        ("instruments", *_quantiles(np.array(music.parts))),
        ("beats a minute", *_quantiles(np.array(music.bpm))),
    ]
    if music.words:
        rows.append(("words a caption", *_quantiles(np.array(music.words))))
    share = [f"{PROGRAM_NAMES[program]} {music.programs[program] / count:.0%}" for program in music.top_programs(_TOP)]
    meters = [f"{meter} {pieces / count:.0%}" for meter, pieces in music.meters.most_common(6)]
    with_caption = sum(captions > 0 for captions in music.captions)
    longest = music.durations[-1] / music.durations.sum()
    return [
        *_table(rows),
        "",
        f"instruments, by share of pieces: {', '.join(share)}",
        f"meter: {', '.join(meters)}",
        f"pieces with several tempos: {music.tempo_changes / count:.0%}",
        f"pieces with a caption: {with_caption / count:.0%} ({sum(music.captions) / count:.1f} captions a piece)",
        f"music: {seconds.sum() / 3600:,.1f} hours; notes as long as a duration may be, "
        f"{(MAX_DURATION_TICKS - 1) / TICKS_PER_SECOND} s: {longest:.2%}",
    ]


def _texts(lengths: np.ndarray, used: np.ndarray) -> list[str]:
    return [
        *_table([("", *_QUANTILE_NAMES, "mean"), ("tokens a document (all)", *_quantiles(lengths))]),
        "",
        f"tokens of the vocabulary that occur: {np.count_nonzero(used):,} of {len(used):,}",
    ]


def _example(where: str, piece: Piece) -> list[str]:
    table = piece.notes
    instruments = ", ".join(PROGRAM_NAMES[program] for program in table.programs()[:_TOP])
    meter = f", {main_meter(table)}" if main_meter(table) else ""
    lines = [
        f"{where}: {piece.name} ({piece.source}, {piece.piece_id})",
        *(f"  caption: {_shortened(caption)}" for caption in piece.captions),
        f"  {len(table):,} notes, {table.seconds():,.1f} s, {main_bpm(table):.0f} beats a minute{meter}",
        f"  {instruments}",
    ]
    for onset, duration, note, velocity in zip(
        table.onsets[:_SHOWN_NOTES].tolist(),
        table.durations[:_SHOWN_NOTES].tolist(),
        table.notes[:_SHOWN_NOTES].tolist(),
        table.velocities[:_SHOWN_NOTES].tolist(),
        strict=True,
    ):
        program, pitch = divmod(note, PITCHES)
        at, long = onset / TICKS_PER_SECOND, duration / TICKS_PER_SECOND
        lines.append(f"  {at:8.2f} s  {PROGRAM_NAMES[program]} {sound(program, pitch)}, {long:.2f} s, {velocity}")
    triples = encode_notes(table)[: 3 * _SHOWN_TRIPLES].reshape(-1, 3).tolist()
    lines.append("  as events: " + " ".join(f"({', '.join(map(str, triple))})" for triple in triples) + " ...")
    return lines


def _document(where: str, text: TextRecord, decoder: Tokenizer | None) -> list[str]:
    ids = text.ids[: _SHOWN_CHARACTERS // 2]
    shown = " ".join(map(str, ids[:40].tolist())) if decoder is None else decoder.decode(ids.tolist())
    return [f"{where}: {text.name} ({text.source}), {len(text.ids):,} tokens", f"  {_shortened(shown)}"]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 4] + " ..."


def _quantiles(values: np.ndarray, digits: int = 0) -> list[str]:
    numbers = [*np.quantile(values, _QUANTILES), np.mean(values)]
    return [f"{number:,.{digits}f}" for number in numbers]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
