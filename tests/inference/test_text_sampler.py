"""Text by our own decoder against transformers', and how it is cut, repeated and shown."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.inference import text_sampler
from midillm_jax.inference.text_sampler import TextModel, TextRequest, load_text_model
from midillm_jax.model import hf, hf_write
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.prompt import text_ids
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

TEXT = 300
GREEDY = TextRequest("a warm drum", max_tokens=60, temperature=0.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    words = [f"a {colour} {thing} plays" for colour in ("warm", "cold", "bright") for thing in ("drum", "horn", "lute")]
    return train_sentencepiece(words, tmp_path_factory.mktemp("tokenizer") / "words.model", TEXT)


def write(tiny_model: ModelConfig, tokenizer: Tokenizer, out: Path) -> Path:
    """A model whose music rows are three times as large as its text rows: the most likely id is a note's."""
    config = dataclasses.replace(tiny_model, text_vocab_size=TEXT)
    params = jax.tree.map(np.asarray, Definition(config, INFERENCE).init(jax.random.key(0)))
    params = jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 1 else leaf, params)
    params["embedding"][TEXT:] *= 3
    return hf_write.write_hf(out, config, params, tokenizer)


@pytest.fixture(scope="module")
def folder(tiny_model: ModelConfig, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tiny_model, tokenizer, tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextModel:
    return load_text_model(folder)


def ids(model: TextModel, request: TextRequest) -> list[int]:
    prompt = text_ids(model.tokenizer, request.prompt)
    return np.concatenate(list(model.sampler.generate(prompt, model.tokenizer.eos_id, request))).tolist()


def test_greedy_ids_are_transformers_own_with_music_left_out(folder: Path, model: TextModel) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    network = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = text_ids(model.tokenizer, GREEDY.prompt)
    options = {"do_sample": False, "max_new_tokens": GREEDY.max_tokens, "eos_token_id": model.tokenizer.eos_id}
    options |= {"temperature": None, "top_p": None, "top_k": None}
    free = network.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
    assert max(free) >= TEXT, "music is not what this model would write; the test shows nothing"
    music = list(range(TEXT, network.config.vocab_size))
    theirs = network.generate(torch.tensor([prompt]), suppress_tokens=music, **options)[0, len(prompt) :].tolist()
    ours = ids(model, GREEDY)
    assert ours == theirs
    assert len(set(ours)) > 5, "always the same few ids: the test shows little"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; expected 1 or more"),
        ({"top_p": 1e-50}, "top_p is 1e-50; expected 0.000001 to 1"),
        ({"temperature": 1e-9}, "temperature is 1e-09; expected 0, or 0.01 to 100"),
        ({"seed": 1 << 32}, "seed is 4294967296; expected 0 to 4294967295"),
        ({"prompt": "a \ud83c"}, "prompt: character 3 is half of a pair"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(GREEDY, **change)


def test_a_seed_says_which_text(model: TextModel) -> None:
    request = dataclasses.replace(GREEDY, temperature=1.5, top_p=1.0, seed=3)
    first = ids(model, request)
    assert first == ids(model, request)
    assert first != ids(model, dataclasses.replace(request, seed=4))
    assert max(first) < TEXT


def test_a_text_ends_where_the_model_ends_it(model: TextModel) -> None:
    """An id that the model writes anyway is taken for the end."""
    written = ids(model, GREEDY)
    end = written[20]
    prompt = text_ids(model.tokenizer, GREEDY.prompt)
    cut = np.concatenate(list(model.sampler.generate(prompt, end, GREEDY))).tolist()
    assert cut == written[: written.index(end) + 1]
    most = dataclasses.replace(GREEDY, max_tokens=11)
    assert ids(model, most) == written[:11]


def test_it_comes_in_small_parts(model: TextModel) -> None:
    parts = list(model.write(GREEDY))
    assert [count for _, count in parts][:8] == [8, 16, 24, 32, 40, 48, 56, 60]
    whole = model.tokenizer.decode(text_ids(model.tokenizer, GREEDY.prompt) + ids(model, GREEDY))
    assert GREEDY.prompt + "".join(text for text, _ in parts) == whole


class _Bytes:
    """Decodes ids as the bytes that they are, as byte-level tokenizers do, and drops a leading space, as others do."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_character_waits_for_its_last_byte(size: int) -> None:
    text = " Für Elise 音楽 🎵 end"
    written = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    parts = [written[start : start + size] for start in range(0, len(written), size)]
    shown = list(text_sampler.pieces(_Bytes(), [*b"by"], parts))  # type: ignore[arg-type]
    assert "".join(piece for piece, _ in shown) == text
    assert [count for _, count in shown] == [min(end, len(written)) for end in range(size, len(written) + size, size)]
    assert not any("\ufffd" in piece for piece, _ in shown)
    broken = list(text_sampler.pieces(_Bytes(), [*b"by"], [written[:3]]))  # type: ignore[arg-type]
    assert broken == [(" F", 3), ("\ufffd", 3)]


def test_a_text_model_writes_text_as_well(tiny_model: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_model, text_vocab_size=TEXT, music_vocab_size=0)
    out = hf_write.write_hf(tmp_path / "text", config, Definition(config, INFERENCE).init(jax.random.key(0)), tokenizer)
    assert len(ids(load_text_model(out), dataclasses.replace(GREEDY, max_tokens=5))) == 5
    with pytest.raises(UserError, match="text model without music rows"):
        hf.load_music_model(out)


def test_more_than_a_sequence_holds_is_refused(model: TextModel) -> None:
    with pytest.raises(UserError, match="max_tokens is 300, but a sequence of this model holds 256"):
        list(model.write(dataclasses.replace(GREEDY, max_tokens=300)))
    for field, value in (("max_tokens", 0), ("temperature", -1.0), ("top_p", 0.0), ("seed", -1)):
        with pytest.raises(UserError, match=f"{field} is {value}"):
            dataclasses.replace(GREEDY, **{field: value})


def test_weights_that_are_broken_are_said_to_be(
    tiny_model: ModelConfig, tokenizer: Tokenizer, model: TextModel
) -> None:
    definition = model.sampler._definition
    params = definition.init(jax.random.key(0))
    params["final_norm"] = params["final_norm"] * np.inf
    broken = dataclasses.replace(model, sampler=text_sampler.TextSampler(definition, params))
    with pytest.raises(UserError, match="not finite"):
        list(broken.write(GREEDY))
