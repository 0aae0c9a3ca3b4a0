"""Prompts become pieces on disk, each kept as it is written, so that an interrupted evaluation goes on.

    pieces/000.json   what asked for it (its key) and the ids that came
    pieces/000.mid    the music

A piece is made again only when its model, prompt, seed or sampling changes.
"""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.inputs import Prompt, fingerprint
from midillm_jax.files import write_whole
from midillm_jax.inference.compose import MusicModel, token_requests
from midillm_jax.inference.engine import Progress
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.music import grammar_check
from midillm_jax.music.amt import decode_notes
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.vocab import SEPARATOR

FOLDER = "pieces"
TOGETHER = 32
"""Prompts handed to the engine in one call."""
DERIVED = (".png", ".flac", ".wav")
"""Endings of what is made from a piece."""
_OURS = re.compile(r"(\d{3,})\.(json|mid|png|flac|wav)")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How music is drawn; the same for every prompt."""

    temperature: float
    top_p: float
    max_notes: int
    max_seconds: float
    guidance: float = 1.0
    """How much the prompt counts, as MusicRequest has it."""


@dataclasses.dataclass(frozen=True)
class Written:
    """How a piece was made."""

    engine: str
    seconds: float
    """Wall time, its share of a batch's; compiling is left out."""


@dataclasses.dataclass(frozen=True)
class Generated:
    """What a prompt gave."""

    prompt: Prompt
    path: Path
    """The .mid file."""
    table: NoteTable
    closed: bool
    """False if the piece was cut for want of room rather than ended."""
    written: Written | None = None
    """None of music that was given."""


def music_request(prompt: Prompt, index: int, sampling: Sampling, seed: int) -> MusicRequest:
    """The request of one prompt; each draws noise of its own, so that outputs are independent."""
    drawn = hashlib.sha256(f"{seed} {index}".encode()).digest()
    return MusicRequest(prompt=prompt.text, seed=int.from_bytes(drawn[:4], "big"), **dataclasses.asdict(sampling))


def generate(
    load: Callable[[], MusicModel],
    identity: str,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    out: Path,
    report: Callable[[int, int, str], None],
) -> list[Generated]:
    """A piece for each prompt, in order; those that lie in ``out`` already are taken from there.

    Args:
        load: gives the model; not called when every piece is there.
        identity: fingerprint of the model, part of each piece's key.
        prompts: what to make.
        sampling, seed: how.
        out: the evaluation's folder.
        report: called with triples written, triples at most, and what is going on.

    Raises:
        UserError: a prompt does not fit into the model's context.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    requests = [music_request(prompt, index, sampling, seed) for index, prompt in enumerate(prompts)]
    keys = [fingerprint([identity, dataclasses.asdict(request)]) for request in requests]
    missing = [index for index, key in enumerate(keys) if _stored(folder, index, key) is None]
    if missing:
        model = load()
        asked = {index: _token_request(model, requests[index], prompts[index]) for index in missing}
        total = sum(request.max_triples for request in asked.values())
        before = 0
        for start in range(0, len(missing), TOGETHER):
            part = missing[start : start + TOGETHER]
            clock = _Clock()

            def tell(now: Progress, before: int = before, clock: _Clock = clock) -> None:
                clock.note(now)
                report(before + now.triples, total, "compiling" if now.stage == "compile" else "writing music")

            written = model.engine.generate([asked[index] for index in part], tell)
            how = Written(model.engine.name, clock.seconds / len(part))
            for index, ids in zip(part, written, strict=True):
                reason = grammar_check.check(ids, asked[index].limits)
                if reason is not None:
                    raise RuntimeError(f"engine {model.engine.name} wrote ids outside the grammar: {reason}")
                _store(folder, index, keys[index], requests[index], ids, how)
            before += sum(asked[index].max_triples for index in part)
    remove_others(folder, len(prompts))
    generated = []
    for index, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
        stored = _stored(folder, index, key)
        assert stored is not None, "written above"
        ids, how = stored
        closed = bool(len(ids)) and int(ids[-1]) == SEPARATOR
        generated.append(Generated(prompt, folder / f"{index:03d}.mid", decode_notes(ids), closed, how))
    return generated


def _token_request(model: MusicModel, request: MusicRequest, prompt: Prompt) -> TokenRequest:
    try:
        return token_requests(model, request)[0]
    except UserError as error:
        raise UserError(f"{prompt.name}: {error}") from None


class _Clock:
    """Adds up an engine's time but for compiling, which a second evaluation need not do."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._stage, self._since = "", time.perf_counter()

    def note(self, now: Progress) -> None:
        """Hears of each stage as it begins."""
        moment = time.perf_counter()
        if self._stage in ("prefill", "decode"):
            self.seconds += moment - self._since
        self._stage, self._since = now.stage, moment


def _store(folder: Path, index: int, key: str, request: MusicRequest, ids: np.ndarray, how: Written) -> None:
    """The .mid first: a piece whose .json is there is whole. What was drawn and played of an earlier one goes."""
    for ending in DERIVED:
        (folder / f"{index:03d}{ending}").unlink(missing_ok=True)
    document: dict[str, Any] = {
        "key": key,
        "request": dataclasses.asdict(request),
        "amt_ids": ids.tolist(),
        "written": dataclasses.asdict(how),
    }
    write_whole(folder / f"{index:03d}.mid", write_midi(decode_notes(ids)))
    write_whole(folder / f"{index:03d}.json", json.dumps(document) + "\n")


def _stored(folder: Path, index: int, key: str) -> tuple[np.ndarray, Written] | None:
    """Ids of the piece and how it was made, if it is there with this key."""
    path = folder / f"{index:03d}.json"
    if not path.is_file() or not path.with_suffix(".mid").is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["key"] != key:
            return None
        return np.array(document["amt_ids"], np.int32), Written(**document["written"])
    except (ValueError, KeyError, TypeError):
        return None


def remove_others(folder: Path, count: int) -> None:
    """Pieces that an evaluation of more prompts left here."""
    for path in folder.iterdir():
        found = _OURS.fullmatch(path.name)
        if found and int(found[1]) >= count:
            path.unlink()
