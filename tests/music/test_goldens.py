"""Every recorded answer of the reference tokenizer: tokens, refusals, operations, and its packed training sequences."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.music import anticipation
from midillm_jax.music.amt import decode_midi, encode_midi
from midillm_jax.music.midi import MidiError, read_midi
from midillm_jax.music.vocab import ANTICIPATE, AUTOREGRESS, SEPARATOR


def sha256(ids) -> str:
    return hashlib.sha256(np.asarray(ids).astype("<i4").tobytes()).hexdigest()


def records(golden_dir: Path, name: str) -> list[dict]:
    with gzip.open(golden_dir / name, "rt") as lines:
        return [json.loads(line) for line in lines]


def midi_bytes(golden_dir: Path, name: str) -> bytes:
    return (golden_dir / "public_midi" / name).read_bytes()


def tokens_sha256(data: bytes, compiled: bool) -> str | None:
    """None for a refused file."""
    try:
        return sha256(encode_midi(data, compiled=compiled))
    except MidiError:
        return None


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_tokens_and_refusals(golden_dir, compiled):
    if compiled:
        pytest.importorskip("numba")
    wrong = []
    found = records(golden_dir, "public.jsonl.gz")
    for record in found:
        expected = None if record["error"] else record["tokens_sha256"]
        if tokens_sha256(midi_bytes(golden_dir, record["file"]), compiled) != expected:
            wrong.append(record["file"])
    assert not wrong
    assert len(found) >= 300


def table_or_refusal(data: bytes, compiled: bool) -> dict[str, tuple[str, list]] | str:
    try:
        table = read_midi(data, compiled=compiled)
    except MidiError as error:
        return str(error)
    return {name: (str(column.dtype), column.tolist()) for name, column in vars(table).items()}


def test_both_readers_make_the_same_tables(golden_dir):
    pytest.importorskip("numba")
    for path in sorted((golden_dir / "public_midi").glob("*.mid"))[::5]:
        data = path.read_bytes()
        assert table_or_refusal(data, compiled=False) == table_or_refusal(data, compiled=True), path.name


def test_operations(golden_dir):
    for record in records(golden_dir, "public_ops.jsonl.gz"):
        events = encode_midi(midi_bytes(golden_dir, record["file"]))
        end = record["end_time"]
        rest, controls = anticipation.split_instruments(events, [record["first_instrument"]])
        padded = anticipation.pad(rest, end)
        woven, left = anticipation.anticipate(padded, controls)
        found = {
            "end_time": int(events[0::3].max()),
            "instruments": anticipation.programs(events).tolist(),
            "pad": sha256(anticipation.pad(events, end)),
            "extract_events": sha256(rest),
            "extract_controls": sha256(controls),
            "pad_events": sha256(padded),
            "anticipate": sha256(woven),
            "unconsumed": len(left),
            "translate_plus7": sha256(anticipation.translate(events, 7)),
            "clip_2_8s": sha256(anticipation.clip(events, 200, 800)),
        }
        expected = {name: record[name]["sha256"] if isinstance(record[name], dict) else record[name] for name in found}
        expected["instruments"] = [program for program, _ in record["instruments"]]
        assert found == expected, record["file"]
        for name, ids in (("events_to_midi", events), ("events_to_midi_anticipated", woven)):
            if "error" in record[name]:
                with pytest.raises(ValueError, match="compat"):
                    decode_midi(ids, compat=True)
            else:
                assert hashlib.sha256(decode_midi(ids, compat=True)).hexdigest() == record[name]["smf_sha256"]


class LegacyRandom:
    """numpy's old global generator under the new names: the reference draws from it, seeded with 0."""

    def __init__(self) -> None:
        old = np.random.RandomState(0)
        self.integers, self.random, self.exponential, self.choice = (
            old.randint,
            old.random_sample,
            old.exponential,
            old.choice,
        )


def reference_window(sequence: list[int]) -> list[int] | None:
    """The reference's relative times: shifted up to a separator, by the earliest onset before it; None over 100 s."""
    ids = np.array(sequence, np.int32)
    piece = anticipation.onsets(ids)
    is_separator = ids[2::3] == SEPARATOR
    until = int(np.argmax(is_separator)) if is_separator.any() else len(piece)
    shift = int(piece[:until].min()) if until else 0
    ids[: 3 * until] = anticipation.translate(ids[: 3 * until], -shift)
    piece[:until] -= shift
    return None if (piece[~is_separator] >= 10_000).any() else ids.tolist()


@pytest.mark.parametrize("factor", [1, 10])
def test_augmented_and_packed_training_sequences(golden_dir, factor):
    """The reference's own packing (its stale flag included), rebuilt from our parts, draw for draw."""
    recorded = json.loads((golden_dir / "public_packing.json").read_text())
    rng = LegacyRandom()
    lines, waiting = [], []
    for name in recorded["files"]:
        events = encode_midi(midi_bytes(golden_dir, name))
        end = int(events[0::3].max())
        if len(events) < 300 or not 1_000 <= end <= 360_000 or len(anticipation.programs(events)) > 16:
            continue
        for kind in range(factor):
            flag_now = ANTICIPATE if kind % 10 else AUTOREGRESS
            rest, controls = anticipation.augment(events, kind % 10, rng)
            woven, left = anticipation.anticipate(anticipation.pad(rest, end), controls)
            assert not len(left)
            if not waiting:
                flag = flag_now
            waiting += [SEPARATOR] * 3 + woven.tolist()
            while len(waiting) >= 1023:
                window, waiting = reference_window(waiting[:1023]), waiting[1023:]
                if window is not None:
                    lines.append(" ".join(map(str, [flag, *window])) + "\n")
                    flag = flag_now
    assert len(lines) == recorded[f"lines_{factor}"]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == recorded[f"sha256_{factor}"]
