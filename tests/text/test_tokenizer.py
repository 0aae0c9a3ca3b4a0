"""Tokenizers of both backends, made here by their own libraries."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from midillm_jax.errors import UserError
from midillm_jax.text.prompt import prompt_ids
from midillm_jax.text.tokenizer import HuggingFaceTokenizer, load_tokenizer, train_sentencepiece
from tests.text import llama3

SENTENCE = "slow waltz in three with soft piano and a walking bass line under bright brass of the evening band"
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[(3 * i + j * j) % len(WORDS)] for j in range(12)) for i in range(40)]
ORDINARY = [
    "A cheerful rock song",
    " leading and  double   spaces ",
    "tabs\tand\nlines\r\n\n  indented",
    "café, Naïve № 1, Für Elise",
    "音楽 🎵 e\u0301",
    "<s> and </s> and <0x0A> and <unk>",
    "",
]


def byte_level(specials: list[str], *plain_added: str) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer whose first ids are the given specials."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS + ["<|begin_of <|end_of <|reserved"] * 9, trainer)
    made.add_tokens([AddedToken(token, special=False) for token in plain_added])
    return made


def save(made: tokenizers.Tokenizer, folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sp") / "small.model"
    train_sentencepiece(TEXTS, path, 320)
    return path


def test_sentencepiece_has_the_size_asked_for_and_keeps_text(sentencepiece_model: Path) -> None:
    tokenizer = load_tokenizer(sentencepiece_model)
    assert tokenizer.vocab_size == 320
    assert len({tokenizer.bos_id, tokenizer.eos_id}) == 2
    assert tokenizer.files == (sentencepiece_model,)
    for text in ORDINARY:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)
        assert all(0 <= i < 320 for i in ids)
    words = tokenizer.encode("slow waltz in three")
    assert tokenizer.decode([tokenizer.bos_id, *words, tokenizer.eos_id]) == "slow waltz in three"
    assert tokenizer.decode(np.array(words, np.int32)) == "slow waltz in three"


def test_sentencepiece_training_is_deterministic(sentencepiece_model: Path, tmp_path: Path) -> None:
    again = train_sentencepiece(iter(TEXTS), tmp_path / "new" / "again.model", 320)
    assert (tmp_path / "new" / "again.model").read_bytes() == sentencepiece_model.read_bytes()
    assert again.fingerprint == load_tokenizer(sentencepiece_model).fingerprint
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["again.model"]
    other = train_sentencepiece(TEXTS[:20], tmp_path / "other.model", 300)
    assert other.fingerprint != again.fingerprint


def test_too_little_text_names_the_size_that_works(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too little for so many pieces") as error:
        train_sentencepiece(TEXTS, tmp_path / "a.model", 9_000)
    works = int(str(error.value).split()[-1])
    assert train_sentencepiece(TEXTS, tmp_path / "a.model", works).vocab_size == works
    with pytest.raises(UserError, match=r"at least \d+ pieces") as error:
        train_sentencepiece(TEXTS, tmp_path / "b.model", 100)
    works = int(str(error.value).split()[-2])
    assert train_sentencepiece(TEXTS, tmp_path / "c.model", works).vocab_size == works
    with pytest.raises(UserError, match="no text to learn from"):
        train_sentencepiece(["", "\n \n"], tmp_path / "b.model", 300)
    assert not (tmp_path / "b.model").exists()


def test_hugging_face_counts_added_tokens_and_adds_none(tmp_path: Path) -> None:
    made = byte_level(["<|endoftext|>"], "<<tag>>")
    made.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    made.enable_truncation(4)
    made.enable_padding(length=64)
    folder = save(made, tmp_path / "hf")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.vocab_size == made.get_vocab_size(with_added_tokens=True) == made.token_to_id("<<tag>>") + 1
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 0)
    assert load_tokenizer(folder / "tokenizer.json").fingerprint == tokenizer.fingerprint
    for text in [*ORDINARY, " ".join(TEXTS)]:
        ids = tokenizer.encode(text)
        assert 0 not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.decode([0, *tokenizer.encode("waltz"), 0]) == "waltz"


@pytest.mark.parametrize("special", ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"])
def test_specials_spelt_in_a_prompt_stay_text(tmp_path: Path, special: str) -> None:
    made = byte_level(["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"])
    tokenizer = load_tokenizer(save(made, tmp_path / "hf"))
    prompt = f"waltz {special}{special} now"
    assert made.token_to_id(special) in made.encode(prompt).ids  # what the library does when left alone
    ids = prompt_ids(tokenizer, prompt)
    assert ids[0] == tokenizer.bos_id == 0
    assert not {0, 1, 2} & set(ids[1:])
    assert prompt in tokenizer.decode(ids)
    # They are spelt as a vocabulary without specials spells them, merges across "<|" included.
    fields = json.loads(made.to_str()) | {"added_tokens": []}
    plain = tokenizers.Tokenizer.from_str(json.dumps(fields))
    assert tokenizer.encode(prompt) == plain.encode(prompt).ids


def test_specials_that_are_ordinary_pieces_too_stay_text(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in "<>/aszt")]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    made.add_special_tokens(["<s>", "</s>"])
    tokenizer = load_tokenizer(save(made, tmp_path / "hf"))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    ids = tokenizer.encode("sa<s>ta</s></s>z")
    assert not {1, 2} & set(ids)
    assert "".join(pieces[i][0] for i in ids) == "sa<s>ta</s></s>z"


def test_begin_and_end_by_name(tmp_path: Path) -> None:
    llama = load_tokenizer(save(byte_level(["<|end_of_text|>", "<|begin_of_text|>"]), tmp_path / "llama"))
    assert (llama.bos_id, llama.eos_id) == (1, 0)
    smol = load_tokenizer(save(byte_level(["<|im_start|>", "<|endoftext|>", "<|im_end|>"]), tmp_path / "smol"))
    assert (smol.bos_id, smol.eos_id) == (1, 1)


def test_begin_and_end_by_the_files_beside(tmp_path: Path) -> None:
    made = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    chat = load_tokenizer(save(made, tmp_path / "a", bos_token="<|im_start|>", eos_token={"content": "<|im_end|>"}))
    assert (chat.bos_id, chat.eos_id) == (1, 2)
    assert [file.name for file in chat.files] == ["tokenizer.json", "tokenizer_config.json"]
    half = load_tokenizer(save(made, tmp_path / "b", bos_token=None, eos_token="<|im_end|>"))
    assert (half.bos_id, half.eos_id) == (0, 2)
    (save(made, tmp_path / "c") / "special_tokens_map.json").write_text(
        '{"bos_token": "<|im_start|>", "eos_token": "<|im_start|>"}'
    )
    mapped = load_tokenizer(tmp_path / "c")
    assert (mapped.bos_id, mapped.eos_id) == (1, 1)
    with pytest.raises(UserError, match=r"'<s>', which is not in this vocabulary"):
        load_tokenizer(save(made, tmp_path / "d", bos_token="<s>", eos_token="<|im_end|>"))


@pytest.mark.parametrize(
    ("specials", "found"),
    [(["<|im_start|>"], "none of them"), (["<s>", "</s>", "<|endoftext|>"], r"more than one: <s>, <\|endoftext\|>")],
)
def test_unclear_begin_and_end_name_what_was_looked_for(tmp_path: Path, specials: list[str], found: str) -> None:
    save(byte_level(specials), tmp_path / "hf")
    with pytest.raises(UserError, match=rf"bos_token and eos_token not given.*<s> with </s>.*{found}.*_config"):
        load_tokenizer(tmp_path / "hf")


def test_fingerprint_follows_the_vocabulary_not_the_spelling(tmp_path: Path) -> None:
    folder = save(byte_level(["<|endoftext|>"]), tmp_path / "hf")
    before = load_tokenizer(folder).fingerprint
    fields = json.loads((folder / "tokenizer.json").read_text())
    assert isinstance(fields["model"]["merges"][0], list)
    fields["model"]["merges"] = [" ".join(merge) for merge in fields["model"]["merges"]]  # as older versions save
    (folder / "tokenizer.json").write_text(json.dumps(fields, indent=3))
    assert load_tokenizer(folder).fingerprint == before
    fields["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    assert load_tokenizer(folder).fingerprint != before


def test_keys_that_a_tokenizer_file_leaves_out_are_null(tmp_path: Path) -> None:
    """As the library reads them: a file without them is one that says null, or lists nothing."""
    made = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")]))
    folder = save(made, tmp_path / "hf", bos_token="<s>", eos_token="</s>")
    fields = json.loads((folder / "tokenizer.json").read_text())
    assert [fields[key] for key in ("added_tokens", "normalizer", "pre_tokenizer")] == [[], None, None]
    before = load_tokenizer(folder).fingerprint
    (folder / "tokenizer.json").write_text(json.dumps({"model": fields["model"]}))
    bare = load_tokenizer(folder)
    assert bare.fingerprint == before
    assert bare.encode("abba") == [4, 3, 2]
    (folder / "tokenizer.json").write_text(json.dumps({"model": fields["model"], "normalizer": {"type": "Lowercase"}}))
    assert load_tokenizer(folder).fingerprint != before


def test_what_a_path_may_be(tmp_path: Path, sentencepiece_model: Path) -> None:
    with pytest.raises(UserError, match=r"meta-llama/Llama-3.2-1B: no such file or folder; expected .* not fetched"):
        load_tokenizer("meta-llama/Llama-3.2-1B")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"looked for tokenizer.json, .*found: none"):
        load_tokenizer(empty)
    (empty / "any.model").write_bytes(sentencepiece_model.read_bytes())
    assert load_tokenizer(empty).vocab_size == 320
    (empty / "second.model").write_bytes(b"x")
    with pytest.raises(UserError, match=r"any.model, second.model"):
        load_tokenizer(empty)
    with pytest.raises(UserError, match=r"second.model: this is not a tokenizer"):
        load_tokenizer(empty / "second.model")
    (empty / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    assert load_tokenizer(empty).files == (empty / "tokenizer.model",)
    (empty / "tokenizer.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(UserError, match=r"tokenizer.json: this JSON file is not a Hugging Face tokenizer"):
        load_tokenizer(empty)


def test_tiktoken_rank_files_are_named(tmp_path: Path) -> None:
    lines = b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256))
    (tmp_path / "tokenizer.model").write_bytes(lines)
    with pytest.raises(UserError, match="tiktoken rank file"):
        load_tokenizer(tmp_path)


@pytest.mark.slow
def test_llama3_prompt_is_midi_llms_id_for_id(tmp_path: Path) -> None:
    """The ids that MIDI-LLM's published generator feeds for this prompt (its code, with Llama 3.2's tokenizer)."""
    rank_file = llama3.rank_file()
    with pytest.raises(UserError, match="tiktoken rank file"):
        load_tokenizer(rank_file)
    tokenizer = load_tokenizer(save(llama3.from_ranks(rank_file), tmp_path / "llama3"))
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (128_256, 128_000, 128_001)
    assert prompt_ids(tokenizer, "A cheerful rock song with bright electric guitars") == [
        *(128000, 2675, 527, 264, 1917, 15144, 40550, 13, 5321, 31435, 1063, 4731, 4184, 311, 279, 2768, 4096, 25),
        *(362, 71414, 7091, 5609, 449, 10107, 9249, 60594, 220),
    ]
    for text in ORDINARY:
        assert tokenizer.decode(tokenizer.encode(text)) == text
