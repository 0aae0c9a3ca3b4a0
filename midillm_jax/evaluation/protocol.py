"""One evaluation from start to end, with its settings and what it leaves on disk.

    index.html         the page (report.py)
    results.json       every score, written last: a folder that has one is finished
    pieces.csv         a row a generated piece (piece_table.py)
    likelihood.json    nats of each held-out piece
    text.json          nats of each document, where text is scored (further.py)
    pieces/            generated music (generation.py), and pictures and sound of those shown

Every part is kept under a fingerprint of what decides it, so that the same command goes on where it was interrupted
and does nothing where it was not.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.data.shards import Piece
from midillm_jax.data.splits import read_ids
from midillm_jax.errors import UserError
from midillm_jax.evaluation import (
    audio,
    curves,
    decoding,
    failed,
    further,
    generation,
    inputs,
    midi_folders,
    music_scores,
    piece_table,
    report,
    shown,
)
from midillm_jax.evaluation.generation import Sampling
from midillm_jax.evaluation.inputs import HeldOut, Prompt
from midillm_jax.evaluation.likelihood import PieceNats, cut, sounding, summarize
from midillm_jax.files import write_whole
from midillm_jax.inference import compose
from midillm_jax.inference.request import MusicRequest
from midillm_jax.model import hf_config
from midillm_jax.text.prompt import music_room, prompt_ids
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer

FORMAT = 6
"""Of results.json; raised when a score changes its meaning, so that results of an older one are not taken for it."""
PAGE, RESULTS, LIKELIHOOD = "index.html", "results.json", "likelihood.json"

Tell = Callable[[str, int, int | None], None]
"""Called with what is going on, how much of it is done, and of how much (None if unknown)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is evaluated, and how."""

    model: Path
    data: Path
    out: Path
    prompts_file: Path | None
    pieces: int | None
    """At most; None for all."""
    seed: int
    show: int
    runs: tuple[Path, ...]
    sampling: Sampling
    ids: Path | None
    """File of a named set; only its pieces are scored."""
    further: further.Settings
    references: Path | None
    """Real music for the FAD instead of the held-out pieces."""
    most_references: int
    audio: audio.Settings


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an evaluation found."""

    page: Path
    lines: tuple[str, ...]
    """The results, in words."""
    done_before: bool
    """Whether the folder held these results already."""


def evaluate(settings: Settings, tell: Tell) -> Outcome:
    """Scores a model, or finds that it was done.

    Raises:
        UserError: a folder or file is missing or does not fit.
    """
    if (settings.pieces is not None and settings.pieces < 1) or settings.show < 0:
        raise UserError(f"--pieces {settings.pieces} --show {settings.show}: expected 1 or more, and 0 or more")
    # Out of range, they are refused here, before hours of work.
    MusicRequest(None, seed=settings.seed, **dataclasses.asdict(settings.sampling))
    tell("reading the model's files", 0, None)
    runs = [curves.read_run(folder) for folder in settings.runs]
    identity = inputs.model_fingerprint(settings.model)
    train, splits = inputs.open_pairs(settings.data, named=settings.ids is not None)
    ids = None if settings.ids is None else read_ids(str(settings.ids))
    prompts = None if settings.prompts_file is None else inputs.read_prompts(settings.prompts_file)
    silence = shown.no_audio()
    planned = further.plan(settings.further, settings.model, settings.seed)
    listener = audio.listener(settings.audio, settings.out)
    real = None
    if settings.references is not None:
        real = midi_folders.folder_references(
            settings.references,
            settings.most_references,
            settings.seed,
            lambda done, total: tell("reading the references", done, total),
        )
    decisive = {
        "format": FORMAT,
        "model": identity,
        "data": inputs.data_fingerprint(train.manifest),
        "seed": settings.seed,
        "pieces": settings.pieces,
        "sampling": dataclasses.asdict(settings.sampling),
        "prompts": None if prompts is None else [prompt.text for prompt in prompts],
        "show": settings.show,
        "runs": [dataclasses.asdict(run) for run in runs],
        "audio": silence is None,
        "ids": None if ids is None else inputs.fingerprint(sorted(ids)),
        "further": planned.identity,
        "audio_scores": None if listener is None else listener.to_json(),
        "references": None if real is None else real.digest,
    }
    key = inputs.fingerprint(decisive)
    before = finished(settings.out, key)
    if before is not None:
        return before
    make_folder(settings.out)

    tokenizer = load_tokenizer(settings.model)
    length = hf_config.row_length(settings.model)
    held_out = inputs.read_held_out(
        train,
        splits,
        tokenizer,
        length,
        pieces=settings.pieces,
        seed=settings.seed,
        ids=ids,
        report=lambda done, total: tell("counting the train split", done, total),
    )
    if real is None:
        real = midi_folders.References(held_out.pieces, inputs.pieces_fingerprint(held_out.pieces), "held-out pieces")
    asked_for = held_out.prompts() if prompts is None else prompts
    audio.require_enough(listener, len(asked_for), len(real.pieces), len(asked_for))
    nats = _nats(settings, identity, held_out, tokenizer, length, tell)
    likelihood = summarize(nats, settings.seed)
    generated = generation.generate(
        lambda: compose.load_model(settings.model),
        identity,
        asked_for,
        settings.sampling,
        settings.seed,
        settings.out,
        lambda done, total, stage: tell(stage, done, total),
    )
    unseen = [piece for piece in generated if piece.prompt.text not in held_out.train_captions]
    drums, instruments = music_scores.symbolic_scores(unseen, settings.seed)
    music = music_scores.score(
        generated, unseen, held_out.pieces, settings.seed, lambda done, total: tell("listening", done, total)
    )
    text = further.score_text(planned, settings.model, identity, length, settings.out, settings.seed, tell)
    more = further.score(planned, text, train, held_out, nats, generated, unseen, music, settings.seed, tell)
    sound = None
    if listener is not None:
        sound = audio.score(listener, generated, unseen, real.pieces, real.digest, settings.seed, tell)
    pieces, problems = shown.draw_and_play(generated, settings.show, silence, tell)
    notes = [*_left_out(held_out, length, len(generated) - len(unseen)), *problems]
    speeds = decoding.by_engine(generated)
    page = report.Report(
        facts=_facts(settings, prompts) | {each.engine: each.line() for each in speeds},
        likelihood=likelihood,
        drums=drums,
        instruments=instruments,
        music=music,
        runs=runs,
        pieces=pieces,
        notes=notes,
        audio=sound,
        further=more.sections(),
    )
    write_whole(settings.out / PAGE, report.render(page, settings.out))
    lines = (*likelihood.lines(), drums.line(), *more.lines(), *(() if sound is None else sound.lines()))
    rows = [
        piece_json(piece, signs, held_out.train_captions)
        for piece, signs in zip(pieces, more.failed.of_piece, strict=True)
    ]
    write_whole(settings.out / piece_table.NAME, piece_table.table(rows, music.measured))
    results = {
        "key": key,
        "inputs": decisive,
        "lines": lines,
        "bits_per_note": likelihood.to_json(),
        "drums_as_asked": drums.to_json(),
        "instruments_as_asked": None if instruments is None else instruments.to_json(),
        "music": music.to_json(),
        "audio_scores": None if sound is None else sound.to_json(),
        "further": more.to_json(),
        "row_length": length,
        "decoding": [each.to_json() for each in speeds],
        "passed_over": {
            "known_notes": held_out.known_notes,
            "known_captions": held_out.known_captions,
            "long_captions": held_out.long_captions,
            "known_prompts": len(generated) - len(unseen),
        },
        "notes": notes,
        "pieces": rows,
    }
    write_whole(settings.out / RESULTS, json.dumps(results, indent=1) + "\n")
    return Outcome(settings.out / PAGE, lines, done_before=False)


def finished(out: Path, key: str) -> Outcome | None:
    """The results that lie in a folder, if they are these."""
    results = _read_json(out / RESULTS)
    if results is None or results["key"] != key or not (out / PAGE).is_file():
        return None
    return Outcome(out / PAGE, tuple(results["lines"]), done_before=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """A document with a key, or None where there is none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "key" in document else None


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: this folder cannot be made ({error.strerror}); name another") from None


def _nats(
    settings: Settings, identity: str, held_out: HeldOut, tokenizer: Tokenizer, length: int, tell: Tell
) -> list[PieceNats]:
    """Scores the held-out pieces, or takes their nats from the folder."""
    texts = [[piece.piece_id, piece.captions[0]] for piece in held_out.pieces]
    key = inputs.fingerprint([FORMAT, identity, texts, length, held_out.train_pieces])
    path = settings.out / LIKELIHOOD
    stored = _read_json(path)
    if stored is not None and stored["key"] == key:
        return [PieceNats(**fields) for fields in stored["pieces"]]
    scored = _score_pieces(settings.model, held_out, tokenizer, length, tell)
    document = {"key": key, "pieces": [dataclasses.asdict(piece) for piece in scored]}
    write_whole(path, json.dumps(document, indent=1) + "\n")
    return scored


def _score_pieces(model: Path, held_out: HeldOut, tokenizer: Tokenizer, length: int, tell: Tell) -> list[PieceNats]:
    # The one part of an evaluation besides the engine that needs jax.
    from midillm_jax.evaluation.scorer import load_scorer

    tell("loading the model", 0, None)
    scorer = load_scorer(model)
    prompts = [prompt_ids(tokenizer, piece.captions[0]) for piece in held_out.pieces]
    windows = [
        (index, window)
        for index, (piece, prompt) in enumerate(zip(held_out.pieces, prompts, strict=True))
        for window in cut(piece.notes, music_room(prompt, length))
    ]
    segments = [window.segment(prompts[index], tokenizer.vocab_size) for index, window in windows]
    tell("scoring held-out pieces", 0, len(segments))
    nats = scorer.nats(segments, lambda done: tell("scoring held-out pieces", done, len(segments)))

    def piece_nats(index: int, piece: Piece) -> PieceNats:
        mine = [number for number, (of, _) in enumerate(windows) if of == index]
        ids = [windows[number][1].amt_ids for number in mine]
        unigram, ngram = (
            _three(np.sum([bar.nats(each) for each in ids], axis=0)) for bar in (held_out.unigram, held_out.ngram)
        )
        notes = sum(map(sounding, ids))
        return PieceNats(piece.piece_id, piece.name, notes, _three(nats[mine].sum(0)), unigram, ngram)

    tell("counting for the 5-gram", 0, None)
    return [piece_nats(index, piece) for index, piece in enumerate(held_out.pieces)]


def _three(nats: np.ndarray) -> tuple[float, float, float]:
    onset, duration, note = nats.tolist()
    return onset, duration, note


def _left_out(held_out: HeldOut, length: int, known_prompts: int) -> list[str]:
    """What the scores do not cover, in sentences."""
    sentences = [
        f"The unigram was counted on {held_out.train_pieces:,} pieces, the 5-gram on {held_out.ngram_pieces:,} of "
        f"them; rows are {length:,} tokens long."
    ]
    if held_out.named is not None:
        sentences.append(held_out.named.line())
    if held_out.known_notes:
        sentences.append(
            f"{held_out.known_notes:,} held-out pieces were passed over because the train split has a piece of the "
            "same notes."
        )
    if held_out.known_captions:
        sentences.append(
            f"{held_out.known_captions:,} held-out pieces were passed over because the train split has their caption "
            "word for word."
        )
    if held_out.long_captions:
        sentences.append(
            f"{held_out.long_captions:,} held-out pieces were passed over because their caption leaves no room for "
            "music."
        )
    if known_prompts:
        sentences.append(f"{known_prompts:,} prompts are captions of the train split word for word and are not scored.")
    return sentences


def _facts(settings: Settings, prompts: Sequence[Prompt] | None) -> dict[str, str]:
    sampling = settings.sampling
    facts = {
        "model": str(settings.model),
        "held-out pieces of": str(settings.data),
        "seed": str(settings.seed),
        "temperature": f"{sampling.temperature:g}",
        "top-p": f"{sampling.top_p:g}",
        "at most": f"{sampling.max_notes} notes and {sampling.max_seconds:g} s",
    }
    if sampling.guidance != 1:
        facts["guidance"] = f"{sampling.guidance:g}"
    if settings.ids is not None:
        facts["named set"] = settings.ids.name
    if prompts is not None:
        facts["prompts of"] = str(settings.prompts_file)
    return facts


def piece_json(piece: report.ReportPiece, signs: Collection[str], train_captions: Collection[str]) -> dict[str, Any]:
    """What results.json says of a piece; ``signs`` are those of failed music that it has (failed.py)."""
    generated = piece.generated
    asked = generated.prompt.programs
    return {
        "midi": f"{generation.FOLDER}/{generated.path.name}",
        "prompt": generated.prompt.text,
        "prompt_from": generated.prompt.name,
        "unseen": generated.prompt.text not in train_captions,
        "asked_programs": None if asked is None else list(asked),
        "asks_for_drums": piece.asks_for_drums,
        "has_drums": piece.has_drums,
        "programs": list(generated.table.programs()),
        "notes": len(generated.table),
        "seconds": generated.table.seconds(),
        "closed": generated.closed,
        **{name: name in signs for name in failed.PIECE_SIGNS},
    }
