"""A text tokenizer and the names of the music rows as llama.cpp keeps a vocabulary.

File format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import json
import re
from typing import Any

import sentencepiece

from midillm_jax.errors import UserError
from midillm_jax.music import vocab
from midillm_jax.text.tokenizer import HuggingFaceTokenizer, Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama_token_type of llama.h. Text never becomes a CONTROL token."""
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Fields of tokenizer.ggml, by their names there."""

    model: str
    pre: str
    """How text is split into words before merges apply."""
    tokens: list[str]
    token_type: list[int]
    scores: list[float] | None
    merges: list[str] | None
    add_space_prefix: bool


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The whole vocabulary of a grown model: text rows, then music rows.

    Raises:
        UserError: llama.cpp has no name for the way this tokenizer works.
    """
    text = _byte_level(tokenizer) if isinstance(tokenizer, HuggingFaceTokenizer) else _sentencepiece(tokenizer)
    names = [f"<|{name}|>" for name in music_names()]
    scores = None if text.scores is None else text.scores + [0.0] * len(names)
    return dataclasses.replace(
        text, tokens=text.tokens + names, token_type=text.token_type + [CONTROL] * len(names), scores=scores
    )


def music_names() -> list[str]:
    """A name for each of the 55,030 amt_ids, such as onset:150 (ticks of 10 ms), note:0:60 (program, pitch)."""
    events = [
        *(f"onset:{ticks}" for ticks in range(vocab.MAX_ONSET_TICKS)),
        *(f"duration:{ticks}" for ticks in range(vocab.MAX_DURATION_TICKS)),
        *(f"note:{note // vocab.PITCHES}:{note % vocab.PITCHES}" for note in range(vocab.NOTES)),
    ]
    anticipated = [f"control-{name}" for name in events]
    return [*events, "rest", *anticipated, "separator", "autoregress", "anticipate", "reserved:0", "reserved:1"]


def _sentencepiece(tokenizer: Tokenizer) -> Vocabulary:
    path = tokenizer.files[0]
    model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())

    def kind(piece: int) -> int:
        asked = (
            (model.is_unknown, UNKNOWN),
            (model.is_control, CONTROL),
            (model.is_unused, UNUSED),
            (model.is_byte, BYTE),
        )
        return next((number for is_kind, number in asked if is_kind(piece)), NORMAL)

    pieces = range(model.get_piece_size())
    kinds, scores = [kind(piece) for piece in pieces], [model.get_score(piece) for piece in pieces]
    # The library does not tell the type of a model. In one of type bpe a score is the rank of a merge.
    if any(score != round(score) for number, score in zip(kinds, scores, strict=True) if number == NORMAL):
        raise UserError(
            f"{path}: llama.cpp reads sentencepiece models of type bpe, this is of another; export without "
            "--format gguf"
        )
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=[model.id_to_piece(piece) for piece in pieces],
        token_type=kinds,
        scores=scores,
        merges=None,
        add_space_prefix=model.encode("a", out_type=str)[0].startswith("\u2581"),
    )


def _byte_level(tokenizer: Tokenizer) -> Vocabulary:
    path = tokenizer.files[0]
    fields = json.loads(path.read_text(encoding="utf-8"))
    model = fields["model"]
    # A field "type" came later than the merges.
    if model.get("type", "BPE") != "BPE" or "merges" not in model or model.get("byte_fallback"):
        raise UserError(
            f"{path}: llama.cpp reads a tokenizer.json if it merges bytes (BPE of GPT-2's kind), this one does not; "
            "export without --format gguf"
        )
    names = {index: name for name, index in model["vocab"].items()}
    types = dict.fromkeys(names, NORMAL)
    for token in fields.get("added_tokens", []):
        names[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    for index in (tokenizer.bos_id, tokenizer.eos_id):
        types[index] = CONTROL
    rows = range(tokenizer.vocab_size)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Vocabulary(
        model="gpt2",
        pre=_splitting(fields.get("pre_tokenizer"), str(path)),
        tokens=[names.get(index, f"[unused {index}]") for index in rows],
        token_type=[types.get(index, UNUSED) for index in rows],
        scores=None,
        merges=merges,
        add_space_prefix=False,
    )


def _splitting(pre_tokenizer: dict[str, Any] | None, where: str) -> str:
    """llama.cpp's name of the pattern that splits text into words."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        pattern = parts[0].get("pattern", {}).get("Regex", "")
        if re.sub(r"\s", "", pattern) == re.sub(r"\s", "", _LLAMA_3):
            return "llama-bpe"
    raise UserError(
        f"{where}: this tokenizer splits text in a way that we know no name for in llama.cpp (known: that of Llama 3, "
        "SmolLM2 and GPT-2); export without --format gguf"
    )
