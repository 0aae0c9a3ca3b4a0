"""The one place that lays out a row: ``[begin-of-text, prompt] flag (onset, duration, note)* [SEPARATOR x 3]``.

The prompt is MIDI-LLM's (arXiv 2511.03942), id for id. Targets and their weights are decided here as well:
a token's weight is that of predicting it from the tokens before it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import Tokenizer

PROMPT_PREFIX = "You are a world-class composer. Please compose some music according to the following description: "


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a row that attends to itself alone.

    Attributes:
        tokens: int32 [T] token ids.
        loss_weights: float32 [T] weight of each token as a target.
        slot: int8 [T] -1 for text and flags, 0 onset, 1 duration, 2 note.
    """

    tokens: np.ndarray
    loss_weights: np.ndarray
    slot: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


def prompt_ids(tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """Token ids in front of the flag; begin-of-text alone when there is no prompt."""
    if prompt is None:
        return [tokenizer.bos_id]
    return [tokenizer.bos_id, *tokenizer.encode(f"{PROMPT_PREFIX}{prompt} ")]


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a document that is to be gone on with: as :func:`text_segment` lays it out, without its end."""
    return [tokenizer.bos_id, *tokenizer.encode(text)]


def music_segment(
    prompt: Sequence[int],
    amt_ids: np.ndarray,
    *,
    text_vocab_size: int,
    closed: bool,
    anticipated: bool,
    prompt_weight: float = 0.0,
) -> Segment:
    """A prompt and the music it asks for.

    Args:
        prompt: token ids from :func:`prompt_ids`.
        amt_ids: int [3n] whole triples, 0 .. 55,029, without flag.
        text_vocab_size: where music ids begin.
        closed: whether the piece ends here, so that the SEPARATOR triple follows.
        anticipated: whether ``amt_ids`` holds controls, which the flag says.
        prompt_weight: of the prompt's tokens behind begin-of-text.

    Returns:
        The flag is given, and so is a prompt of no weight; every music token weighs 1.

    Raises:
        ValueError: ``amt_ids`` ends inside a triple.
    """
    if len(amt_ids) % 3:
        raise ValueError(f"{len(amt_ids)} music ids are not whole (onset, duration, note) triples")
    flag = vocab.ANTICIPATE if anticipated else vocab.AUTOREGRESS
    ending = [vocab.SEPARATOR] * 3 if closed else []
    music = np.concatenate([np.asarray(amt_ids, np.int32), np.asarray(ending, np.int32)])
    given = np.asarray([*prompt, text_vocab_size + flag], np.int32)
    weights = np.concatenate([np.zeros(len(given), np.float32), np.ones(len(music), np.float32)])
    weights[1 : len(prompt)] = prompt_weight
    slots = np.concatenate([np.full(len(given), vocab.NO_SLOT, np.int8), np.arange(len(music), dtype=np.int64) % 3])
    return Segment(np.concatenate([given, music + np.int32(text_vocab_size)]), weights, slots.astype(np.int8))


def text_segment(ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> Segment:
    """A document between begin-of-text, which is given, and end-of-text, which is a target."""
    tokens = np.asarray([tokenizer.bos_id, *ids, tokenizer.eos_id], np.int32)
    weights = np.ones(len(tokens), np.float32)
    weights[0] = 0
    return Segment(tokens, weights, np.full(len(tokens), vocab.NO_SLOT, np.int8))


def lead(segment: Segment | int, start: int = 0) -> int:
    """Padding tokens (0, 1 or 2) in front of a music segment so that its onsets sit at row indices = 0 mod 3.

    Args:
        segment: the segment, or how many tokens it has before its first onset (prompt and flag).
        start: the row index where the padding would begin.
    """
    if isinstance(segment, Segment):
        onsets = np.flatnonzero(segment.slot == vocab.ONSET_SLOT)
        if not len(onsets):
            return 0
        segment = int(onsets[0])
    return -(start + segment) % 3


def music_room(prompt: Sequence[int], row_length: int) -> int:
    """Triples that a row of ``row_length`` tokens holds behind a prompt and the flag."""
    given = len(prompt) + 1
    return (row_length - given - lead(given)) // 3
