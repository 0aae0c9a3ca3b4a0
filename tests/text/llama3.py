"""Llama 3's tokenizer.json, made from Meta's rank file, which the package llama-models carries."""

import base64
import importlib.util
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def rank_file() -> Path:
    """Meta's file; a test that asks where it is not installed is skipped."""
    package = importlib.util.find_spec("llama_models")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llama-models is not installed (pip install --no-deps llama-models)")
    return Path(package.submodule_search_locations[0]) / "llama3" / "tokenizer.model"


def special_tokens() -> list[str]:
    """The 256 of Llama 3.1 and later, ids 128,000 and up."""
    named = {
        0: "begin_of_text",
        1: "end_of_text",
        4: "finetune_right_pad_id",
        6: "start_header_id",
        7: "end_header_id",
        8: "eom_id",
        9: "eot_id",
        10: "python_tag",
    }
    reserved = iter(range(256))
    return [f"<|{named[i] if i in named else f'reserved_special_token_{next(reserved)}'}|>" for i in range(256)]


def printable_bytes() -> list[int]:
    """GPT-2's byte alphabet: printable bytes first, then the others, which borrow letters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [byte for byte in range(256) if byte not in printable]


def printable_letters() -> list[str]:
    return [chr(byte) for byte in printable_bytes()[:188]] + [chr(256 + i) for i in range(68)]


def from_ranks(rank_file: Path) -> tokenizers.Tokenizer:
    """Llama 3's tokenizer.json from Meta's rank file: merges are all splits of a token into two tokens, by rank."""
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, rank_file.open("rb"))}
    letters = dict(zip(printable_bytes(), printable_letters(), strict=True))

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(ranks[left], ranks[right], left, right) for left, right in splits if {left, right} <= ranks.keys()]
        merges += [(rank, spell(left), spell(right)) for _, _, left, right in sorted(known)]
    merges.sort(key=lambda merge: merge[0])
    made = tokenizers.Tokenizer(
        models.BPE(
            {spell(token): rank for token, rank in ranks.items()},
            [(left, right) for _, left, right in merges],
            ignore_merges=True,
        )
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special_tokens())
    return made
