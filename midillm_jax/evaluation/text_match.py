"""Does music sound like its prompt? What a network of words and audio, or a tagger, says of each piece and each prompt.

Every score stands beside the same pieces judged by shuffled prompts, the mean over all orders in which prompts can be
dealt out, as in :mod:`~midillm_jax.evaluation.symbolic`: only what is above that is owed to the prompt.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from midillm_jax.evaluation.clap import Clap
from midillm_jax.evaluation.intervals import Interval, bootstrap, is_better
from midillm_jax.evaluation.musicnn import Musicnn
from midillm_jax.evaluation.networks import Embedding, Heard

AMAAI_SECONDS = 20
AMAAI_LEAST = 0.01
_SPELLINGS = {"rnb": ("r&b", "r and b"), "hip hop": ("hiphop",), "electronica": ("electronica",)}
"""Of tags, other ways in which prompts write them."""


@dataclasses.dataclass(frozen=True)
class Match:
    """One score over many pieces."""

    name: str
    prompts: int
    """Those that say something that the score can judge."""
    own: Interval
    shuffled: Interval
    better_by: Interval
    wins: bool
    real: Interval | None = None
    """Of real pieces and their own captions, where there are any: what a model can be expected to reach."""
    of_prompts: tuple[tuple[str, float], ...] = ()
    """Each prompt and the score of its own piece."""


def matches(
    embedding: Embedding,
    pieces: Sequence[Heard],
    prompts: Sequence[str],
    real: Sequence[Heard],
    captions: Sequence[str],
    seed: int,
) -> tuple[Match, ...]:
    """The scores that a network can give; none for one that knows no words.

    Args:
        embedding: the network.
        pieces: what it heard, each made for the prompt of its place.
        prompts: the words.
        real: the same of real pieces, with their captions; may be empty.
        captions: of the real pieces.
        seed: of the resamples.
    """
    if not prompts:
        return ()
    names: tuple[str, ...]
    if isinstance(embedding, Clap):
        names = (
            f"CLAP, 100 x cosine, {embedding.chunk_seconds} s chunks, all kept",
            f"CLAP by AMAAI's rule, {AMAAI_SECONDS} s chunks, similarities under {AMAAI_LEAST} dropped",
        )
        own = [rule(embedding, pieces, prompts) for rule in (fixed_chunks, amaai)]
        theirs = [rule(embedding, real, captions) for rule in (fixed_chunks, amaai)] if real else [None, None]
    elif isinstance(embedding, Musicnn):
        names = ("musicnn, % for the tags that the prompt names",)
        own = [tag_shares(embedding, pieces, prompts)]
        theirs = [tag_shares(embedding, real, captions)] if real else [None]
    else:
        return ()
    found = []
    for name, mine, other in zip(names, own, theirs, strict=True):
        match = judged(name, mine, seed)
        if match is not None:
            ceiling = None if other is None else judged(name, other, seed)
            scores = zip(prompts, np.diagonal(mine).tolist(), strict=True)
            of_prompts = tuple((prompt, score) for prompt, score in scores if not np.isnan(score))
            real_own = None if ceiling is None else ceiling.own
            found.append(dataclasses.replace(match, real=real_own, of_prompts=of_prompts))
    return tuple(found)


def fixed_chunks(clap: Clap, pieces: Sequence[Heard], texts: Sequence[str]) -> np.ndarray:
    """float64 [pieces, texts]: 100 x the mean cosine of a piece's chunks and a text."""
    return 100 * np.stack([piece.mean() for piece in pieces]) @ clap.read(texts).T.astype(np.float64)


def amaai(clap: Clap, pieces: Sequence[Heard], texts: Sequence[str]) -> np.ndarray:
    """The same in chunks of 20 s, of which CLAP hears its 10 s, those of which under 0.01 are left out of the mean.

    AMAAI-Lab's rule for Text2midi. CLAP's extractor takes 10 s of each 20 s at random; here they are the first, so
    that the score stays the same. It flatters: what does not fit counts for nothing. 0 where nothing is left.
    """
    words = clap.read(texts).T.astype(np.float64)
    step = max(1, round(AMAAI_SECONDS / clap.chunk_seconds))
    rows = []
    for piece in pieces:
        cosines = piece.chunks[::step] @ words
        kept = cosines >= AMAAI_LEAST
        rows.append((cosines * kept).sum(0) / np.maximum(kept.sum(0), 1))
    return 100 * np.stack(rows)


def tag_shares(tagger: Musicnn, pieces: Sequence[Heard], texts: Sequence[str]) -> np.ndarray:
    """float64 [pieces, texts]: percent, the mean probability of the tags that a text names; NaN where it names none."""
    heard = []
    for piece in pieces:
        assert piece.tags is not None, "a tagger gives tags"
        heard.append(piece.weights @ piece.tags.astype(np.float64))
    shares = np.full((len(pieces), len(texts)), np.nan)
    for column, text in enumerate(texts):
        named = named_tags(text, tagger.tags)
        if named:
            shares[:, column] = 100 * np.stack(heard)[:, named].mean(1)
    return shares


def named_tags(text: str, tags: Sequence[str]) -> list[int]:
    """Places of the tags that a text names as whole words; of a longer tag its parts do not count again."""
    spelled: dict[str, int] = {}
    for place, tag in enumerate(tags):
        plain = _plain(tag)
        spelled |= dict.fromkeys((plain, *_SPELLINGS.get(plain, ())), place)
    longest_first = sorted(spelled, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
    return sorted({spelled[found[0]] for found in re.finditer(pattern, _plain(text))})


def _plain(text: str) -> str:
    return re.sub(r"[\s-]+", " ", text.lower())


def judged(name: str, scores: np.ndarray, seed: int) -> Match | None:
    """The mean of a matrix's diagonal beside that of all of it, float64 [n, n]; columns of NaN are left out."""
    said = ~np.isnan(np.diagonal(scores))
    scores = scores[np.ix_(said, said)]
    items = len(scores)
    if not items:
        return None
    own = np.diagonal(scores)

    def means(weights: np.ndarray) -> np.ndarray:
        mine = weights @ own / items
        dealt = ((weights @ scores) * weights).sum(1) / items**2
        return np.stack([mine, dealt, mine - dealt], axis=1)

    mine, dealt, better_by = bootstrap(means, items, seed)
    return Match(name, items, mine, dealt, better_by, is_better(better_by, items))
