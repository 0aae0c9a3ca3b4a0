"""What a model has kept of language: nats a token on held-out text, and how far it has moved from the text model that
it began with.

Documents are drawn whole, in an order of chance, until they have as many tokens as asked for. Each is laid out as in
training, begin-of-text, its ids, end-of-text, and cut into rows of the model's length, a row's first token being the
last one of the row before. Every token but begin-of-text is a target. Probabilities are over the text rows alone, as
in the loss of training.

The distance is the Kullback-Leibler divergence of what the base says comes next from what the model says (model/
next_text.py, as training logs it), the mean over the same targets. Both need one tokenizer.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midillm_jax.data import sources
from midillm_jax.data.shards import MANIFEST_NAME, open_split
from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval, bootstrap
from midillm_jax.text.tokenizer import Tokenizer, load_tokenizer


@dataclasses.dataclass(frozen=True)
class Document:
    """A text."""

    ids: tuple[int, ...]
    size_bytes: int
    """In UTF-8."""

    def rows(self, tokenizer: Tokenizer, length: int) -> list[np.ndarray]:
        """int32 rows of at most ``length`` tokens; all but a row's first token are targets, each once."""
        tokens = np.array([tokenizer.bos_id, *self.ids, tokenizer.eos_id], np.int32)
        return [tokens[start : start + length] for start in range(0, len(tokens) - 1, length - 1)]


@dataclasses.dataclass(frozen=True)
class DocumentNats:
    """What one document cost."""

    tokens: int
    """Targets: its ids and end-of-text."""
    size_bytes: int
    nats: float
    divergence: float | None
    """Nats, added up over the targets; None without a base."""


def read_documents(place: Path, tokenizer: Tokenizer, tokens: int, seed: int) -> list[Document]:
    """Held-out text of a folder made by ``prepare text``, or all text of a file or folder.

    Raises:
        UserError: there is no text, or the shards were made with another tokenizer.
    """
    if tokens < 1:
        raise UserError(f"--text-tokens {tokens}: expected 1 or more")
    documents: list[Document] = []
    for document in (
        _prepared(place, tokenizer, seed) if (place / MANIFEST_NAME).is_file() else _plain(place, tokenizer, seed)
    ):
        if document.ids:
            documents.append(document)
        if sum(len(each.ids) for each in documents) >= tokens:
            break
    if not documents:
        raise UserError(f"--text {place}: holds no text; expected text files, or a folder that `prepare text` made")
    return documents


def _prepared(folder: Path, tokenizer: Tokenizer, seed: int) -> Iterator[Document]:
    reader = open_split(folder, "validation", kinds=("text",), fingerprint=tokenizer.fingerprint)
    for record in np.random.default_rng(seed).permutation(len(reader)).tolist():
        ids = reader.text(record).ids.tolist()
        yield Document(tuple(ids), len(tokenizer.decode(ids).encode()))


def _plain(place: Path, tokenizer: Tokenizer, seed: int) -> Iterator[Document]:
    texts = list(sources.read_texts([str(place)], exclude=()))
    for number in np.random.default_rng(seed).permutation(len(texts)).tolist():
        yield Document(tuple(tokenizer.encode(texts[number])), len(texts[number].encode()))


def check_base(base: Path, tokenizer: Tokenizer) -> None:
    """Raises UserError if the base's text ids are not the model's."""
    theirs = load_tokenizer(base)
    if theirs.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"--base {base}: has another tokenizer ({theirs.vocab_size:,} ids) than the model ({tokenizer.vocab_size:,}"
            "); expected the text model that it was trained from, whose distributions are over the same ids"
        )


def score(
    model: Path,
    base: Path | None,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    report: Callable[[int, int], None],
) -> list[DocumentNats]:
    """Scores documents, with the base if there is one.

    Args:
        model, base: Hugging Face folders.
        documents: what is scored.
        tokenizer: of both.
        length: tokens of a row.
        report: called with rows scored, and rows to score.

    Raises:
        UserError: a folder holds no model, or gives numbers that are not finite.
    """
    # With the scorer and the engine the only part of an evaluation that needs jax.
    from midillm_jax.evaluation.text_scorer import load_text_scorer

    rows = [(number, row) for number, each in enumerate(documents) for row in each.rows(tokenizer, length)]
    found = load_text_scorer(model, base).score([row for _, row in rows], lambda done: report(done, len(rows)))
    of = np.array([number for number, _ in rows])
    nats, divergence = (np.bincount(of, column, len(documents)) for column in found.T)
    return [
        DocumentNats(len(each.ids) + 1, each.size_bytes, float(cost), None if base is None else float(apart))
        for each, cost, apart in zip(documents, nats, divergence, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class TextScores:
    """Over all documents, with intervals over documents."""

    documents: int
    tokens: int
    nats_a_token: Interval
    bits_a_byte: Interval
    """The same in a unit that the tokenizer has no part in."""
    divergence: Interval | None
    """Nats a token; None without a base."""

    def line(self) -> str:
        """The result in one line."""
        perplexity = math.exp(self.nats_a_token.value)
        apart = "" if self.divergence is None else f", {self.divergence.numbers()} nats a token from the base"
        return (
            f"text, {self.tokens:,} tokens of {self.documents} documents: {self.nats_a_token.numbers()} nats a token "
            f"(perplexity {perplexity:.4g}), {self.bits_a_byte.numbers()} bits a byte{apart}"
        )

    def to_json(self) -> dict[str, Any]:
        perplexity = {name: math.exp(value) for name, value in dataclasses.asdict(self.nats_a_token).items()}
        return dataclasses.asdict(self) | {"perplexity": perplexity, "line": self.line()}


def summarize(documents: Sequence[DocumentNats], seed: int) -> TextScores:
    """Adds up documents; at least one."""
    tokens = np.array([each.tokens for each in documents], np.float64)
    sizes = np.array([each.size_bytes for each in documents], np.float64)
    nats = np.array([each.nats for each in documents])
    apart = np.array([each.divergence or 0.0 for each in documents])

    def scores(weights: np.ndarray) -> np.ndarray:
        count = weights @ tokens
        return np.stack(
            [weights @ nats / count, weights @ nats / np.log(2) / (weights @ sizes), weights @ apart / count], 1
        )

    a_token, a_byte, divergence = bootstrap(scores, len(documents), seed)
    return TextScores(
        documents=len(documents),
        tokens=int(tokens.sum()),
        nats_a_token=a_token,
        bits_a_byte=a_byte,
        divergence=None if documents[0].divergence is None else divergence,
    )
