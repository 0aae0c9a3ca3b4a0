"""One text-tokenizer protocol over two backends: sentencepiece (.model) and Hugging Face tokenizer.json.

Text never becomes a special token: a prompt that spells ``<|begin_of_text|>`` is encoded as those characters.
Specials are added by text/prompt.py alone. The backend is chosen by what a file holds, not by its name.
"""

import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

from midillm_jax.errors import UserError

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")
"""A line of a tiktoken rank file: a token's bytes in base64, and its rank."""
_PAIRS_BY_NAME = (("<|begin_of_text|>", "<|end_of_text|>"), ("<s>", "</s>"), ("<|endoftext|>", "<|endoftext|>"))
"""Begin and end of text as Llama 3, Llama 2 and GPT-2 (SmolLM2) name them."""
_FAMILY_FILES = ("tokenizer_config.json", "special_tokens_map.json")
"""Files beside a tokenizer.json that may name its begin and end of text; the first that does decides."""
_TRAINING_LINES = 4_000_000
"""Lines a vocabulary is learned from at most, drawn evenly, so that memory does not grow with the corpus."""


class Tokenizer(Protocol):
    """Text to ids and back. Ids are ``0 .. vocab_size - 1``; music rows follow at ``vocab_size``."""

    @property
    def vocab_size(self) -> int:
        """Ids, added tokens included: 128,256 for Llama 3."""

    @property
    def bos_id(self) -> int:
        """Begin of text."""

    @property
    def eos_id(self) -> int:
        """End of text; may equal bos_id."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the ids; text shards carry it."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What an export copies so that the vocabulary travels with the weights."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, no specials added and none parsed."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens leave no trace."""


class SentencePieceTokenizer:
    """A sentencepiece model, through its own library."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise UserError(
                f"{path}: this is not a tokenizer; expected a sentencepiece .model, a Hugging Face tokenizer.json, "
                "or a folder that holds one"
            ) from error
        self.vocab_size: int = self._processor.get_piece_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        for name, found in (("begin-of-text (bos_id)", self.bos_id), ("end-of-text (eos_id)", self.eos_id)):
            if found < 0:
                raise UserError(f"{path}: this sentencepiece model has no {name} piece; train it with one")
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.files: tuple[Path, ...] = (path,)

    def encode(self, text: str) -> list[int]:
        return list(self._processor.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._processor.decode([int(i) for i in ids]))


class HuggingFaceTokenizer:
    """A tokenizer.json, through the tokenizers library."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        try:
            fields = json.loads(text)
            self._backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(
                f"{path}: this JSON file is not a Hugging Face tokenizer ({error}); expected a tokenizer.json "
                'with a "model" field'
            ) from error
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True  # "parse no specials", in the library's words
        # A vocabulary with holes still needs a table row for its last id.
        self.vocab_size: int = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1
        beside = tuple(path.with_name(name) for name in _FAMILY_FILES if path.with_name(name).is_file())
        self.bos_id, self.eos_id = _special_ids(path, beside, self._backend)
        self.fingerprint = _fingerprint(fields)
        self.files: tuple[Path, ...] = (path, *beside)
        special = {token.content: i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}
        special |= {str(self._backend.id_to_token(i)): i for i in (self.bos_id, self.eos_id)}
        self._special_ids = frozenset(special.values())
        self._special_text = re.compile("|".join(re.escape(name) for name in special))

    def encode(self, text: str) -> list[int]:
        ids = list(self._backend.encode(text, add_special_tokens=False).ids)
        if self._special_ids.isdisjoint(ids):
            return ids
        # Some models (unigram ones converted from sentencepiece) hold their specials as ordinary pieces too: cut
        # the text inside each name, so that no part can spell one.
        cuts = [0, *(match.start() + 1 for match in self._special_text.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in itertools.pairwise(cuts)]
        return [i for part in parts for i in self._backend.encode(part, add_special_tokens=False).ids]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._backend.decode([int(i) for i in ids], skip_special_tokens=True))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file, or in a folder that holds one.

    A folder's ``tokenizer.json`` goes before its ``tokenizer.model``, as in transformers; a folder with neither
    may hold one ``*.model``.

    Raises:
        UserError: nothing is there, it is of another kind, or its begin and end of text cannot be told.
    """
    found = Path(path)
    if found.is_dir():
        found = _file_in(found)
    if not found.is_file():
        raise UserError(
            f"{path}: no such file or folder; expected a sentencepiece .model, a Hugging Face tokenizer.json, or a "
            "folder that holds one (names on the Hugging Face hub are not fetched: download the folder first)"
        )
    with found.open("rb") as file:
        start = file.read(4096)
    if start.lstrip().startswith(b"{"):
        return HuggingFaceTokenizer(found)
    if _RANK_LINE.match(start):
        raise UserError(
            f"{found}: this is a tiktoken rank file (Meta's own format for Llama 3 and 4), which holds neither merges "
            "nor special tokens; use the tokenizer.json of the same model's Hugging Face folder"
        )
    return SentencePieceTokenizer(found)


def train_sentencepiece(texts: Iterable[str], out: str | os.PathLike[str], vocab_size: int) -> Tokenizer:
    """Learns a byte-pair vocabulary of exactly ``vocab_size`` pieces and writes it to ``out``.

    Unknown characters fall back to bytes and white space is kept as it is, so ``decode(encode(text)) == text``
    (but for U+2581, which sentencepiece writes for a space). The same texts give the same bytes.

    Raises:
        UserError: the texts cannot fill the vocabulary, or it is too small to hold bytes and letters.
    """
    content = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.splitlines() if line.strip()),
            model_writer=content,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.9995,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            input_sentence_size=_TRAINING_LINES,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_training_failure(str(error), vocab_size)) from error
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(content.getvalue())
    os.replace(partial, target)
    return SentencePieceTokenizer(target)


def _training_failure(message: str, vocab_size: int) -> str:
    if too_high := re.search(r"value <= (\d+)", message):
        return (
            f"--vocab-size {vocab_size}: the text is too little for so many pieces; give more text, or ask for at "
            f"most {too_high[1]}"
        )
    if too_low := re.search(r"(\d+) vs (\d+)", message):
        return f"--vocab-size {vocab_size}: bytes and the text's own letters need at least {too_low[2]} pieces"
    if "sentences_.empty()" in message:
        return f"--vocab-size {vocab_size}: there is no text to learn from; the files are empty"
    return f"--vocab-size {vocab_size}: sentencepiece could not learn a vocabulary: {message}"


def _file_in(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    models = sorted(folder.glob("*.model"))
    if len(models) != 1:
        names = ", ".join(model.name for model in models) or "none"
        raise UserError(
            f"{folder}: no tokenizer found in this folder; looked for tokenizer.json, tokenizer.model and a single "
            f"*.model (found: {names})"
        )
    return models[0]


def _special_ids(path: Path, beside: tuple[Path, ...], backend: tokenizers.Tokenizer) -> tuple[int, int]:
    """Begin and end of text: as the files beside say, else by name among the added tokens."""
    stated = {key: _named_token(beside, key) for key in ("bos_token", "eos_token")}
    for key, token in stated.items():
        if token is not None and backend.token_to_id(token) is None:
            raise UserError(
                f"{path}: the files beside it say {key} is {token!r}, which is not in this vocabulary; the files "
                "belong to different tokenizers"
            )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    pairs = [pair for pair in _PAIRS_BY_NAME if added.issuperset(pair)]
    if None in stated.values() and len(pairs) != 1:
        looked_for = "; ".join(" with ".join(dict.fromkeys(pair)) for pair in _PAIRS_BY_NAME)
        missing = " and ".join(key for key, token in stated.items() if token is None)
        found = "none of them" if not pairs else "more than one: " + ", ".join(pair[0] for pair in pairs)
        raise UserError(
            f"{path}: cannot tell which token begins or ends a text: {missing} not given in a tokenizer_config.json "
            f"beside it, and of the known names ({looked_for}) it has {found}; put a tokenizer_config.json with "
            "bos_token and eos_token beside it"
        )
    begin = stated["bos_token"] or pairs[0][0]
    end = stated["eos_token"] or pairs[0][1]
    ids = backend.get_vocab(with_added_tokens=True)
    return ids[begin], ids[end]


def _named_token(beside: tuple[Path, ...], key: str) -> str | None:
    """A special token's text in the first file that names it: a string, or an object with "content"."""
    for file in beside:
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: this is not valid JSON ({error}); mend or remove it") from error
        value = fields.get(key)
        if value is not None:
            return str(value["content"]) if isinstance(value, dict) else str(value)
    return None


def _fingerprint(fields: dict[str, Any]) -> str:
    """Of the fields that decide ids, in canonical form: saving again with another version changes the spelling."""
    model = dict(fields["model"])
    if "merges" in model:
        model["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    # To the library, a key that is absent is one that is null, and no list is an empty one.
    added = fields.get("added_tokens", [])
    decisive = [model, added, fields.get("normalizer"), fields.get("pre_tokenizer")]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
