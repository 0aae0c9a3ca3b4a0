"""Nats of text beside a softmax written out, and the distance of two models beside the formula."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.evaluation.text_scorer import POSITIONS, TextScorer
from midillm_jax.evaluation.text_scores import Document, DocumentNats, check_base, read_documents, summarize
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.text.tokenizer import load_tokenizer, train_sentencepiece

TEXT = 100


@pytest.fixture(scope="module")
def definition(tiny_model: ModelConfig) -> Definition:
    return Definition(dataclasses.replace(tiny_model, num_layers=2), INFERENCE)


def drawn(definition: Definition, seed: int) -> Params:
    # Large enough that the predictions are far from uniform.
    return jax.tree.map(lambda leaf: leaf * 4, definition.init(jax.random.key(seed)))


def written_out(definition: Definition, params: Params, row: np.ndarray) -> np.ndarray:
    """log p over the text rows at every position, float64 [T, TEXT]."""
    tokens, positions = jnp.asarray(row)[None], jnp.arange(len(row))[None]
    hidden = definition.forward(params, tokens, positions, jnp.ones_like(tokens))
    logits = np.asarray(hidden[0], np.float64) @ np.asarray(head_table(params), np.float64)[:TEXT].T
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.fixture(scope="module")
def rows() -> list[np.ndarray]:
    """More than one batch, of different lengths, one longer than a chunk."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, TEXT, length, np.int32) for length in (5, 40, POSITIONS + 7, 2, 17, 40)]


def test_nats_and_divergence_are_those_of_the_formulas(definition: Definition, rows: list[np.ndarray]) -> None:
    model, base = drawn(definition, 3), drawn(definition, 4)
    found = TextScorer((definition, model), (definition, base)).score(rows)
    for row, (nats, apart) in zip(rows, found, strict=True):
        ours, theirs = (written_out(definition, params, row) for params in (model, base))
        assert nats == pytest.approx(-ours[np.arange(len(row) - 1), row[1:]].sum(), rel=1e-4)
        assert apart == pytest.approx((np.exp(theirs) * (theirs - ours))[:-1].sum(), rel=1e-3)
    alone = TextScorer((definition, model), None).score(rows)
    assert alone[:, 0] == pytest.approx(found[:, 0], rel=1e-5)
    assert not alone[:, 1].any()


def test_a_model_is_at_no_distance_from_itself(definition: Definition, rows: list[np.ndarray]) -> None:
    model = drawn(definition, 3)
    found = TextScorer((definition, model), (definition, model)).score(rows)
    assert found[:, 1] == pytest.approx(0, abs=1e-4)


def test_broken_weights_are_said_to_be(definition: Definition, rows: list[np.ndarray]) -> None:
    broken = jax.tree.map(lambda leaf: leaf * np.nan, drawn(definition, 3))
    with pytest.raises(UserError, match="not finite"):
        TextScorer((definition, broken), None).score(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty texts, and a tokenizer of them."""
    out = tmp_path_factory.mktemp("text")
    texts = [f"Text {number} sings of a cat, a cäne and {number * 7} small birds.\n" * 3 for number in range(20)]
    for number, text in enumerate(texts):
        (out / f"{number}.txt").write_text(text, encoding="utf-8")
    train_sentencepiece(texts, out / "tokenizer.model", 300)
    return out


def test_every_token_is_a_target_once(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    ids = tuple(range(10, 33))
    for length in (4, 7, 24, 25, 26, 99):
        cut = Document(ids, 1).rows(tokenizer, length)
        assert max(map(len, cut)) <= length
        assert [token for row in cut for token in row[1:].tolist()] == [*ids, tokenizer.eos_id]
        assert all(one[-1] == other[0] for one, other in itertools.pairwise(cut)), "what came before is given"
        assert cut[0][0] == tokenizer.bos_id


def test_documents_are_drawn_until_there_is_enough(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    everything = read_documents(folder, tokenizer, 10**6, seed=0)
    some = read_documents(folder, tokenizer, 150, seed=0)
    assert len(everything) == 20
    assert some == everything[: len(some)]
    assert sum(len(each.ids) for each in some[:-1]) < 150 <= sum(len(each.ids) for each in some)
    assert read_documents(folder, tokenizer, 150, seed=1) != some
    sizes = {(folder / f"{number}.txt").stat().st_size - len("\n") for number in range(20)}
    assert {each.size_bytes for each in everything} == sizes, "UTF-8: an umlaut has two"
    with pytest.raises(UserError, match="--text-tokens 0"):
        read_documents(folder, tokenizer, 0, seed=0)


def test_a_prepared_folder_gives_its_held_out_documents(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer.model")
    found = read_documents(corpus / "text", tokenizer, 10**6, seed=0)
    manifest = json.loads((corpus / "text" / "manifest.json").read_text())
    assert len(found) == sum(shard["records"] for shard in manifest["splits"]["validation"]["shards"])


def test_a_base_of_another_vocabulary_is_refused(folder: Path, corpus: Path) -> None:
    check_base(folder, load_tokenizer(folder / "tokenizer.model"))
    with pytest.raises(UserError, match=r"another tokenizer \(300 ids\) than the model \(600\)"):
        check_base(folder, load_tokenizer(corpus / "tokenizer.model"))


def test_sums_over_documents() -> None:
    """Two nats a token in one document, three in the other, which has three times as many; 4 bytes a token."""
    documents = [DocumentNats(10, 40, 20.0, 1.0), DocumentNats(30, 120, 90.0, 6.0)]
    found = summarize(documents, seed=0)
    assert (found.documents, found.tokens) == (2, 40)
    assert found.nats_a_token.value == pytest.approx(2.75)
    assert (found.nats_a_token.low, found.nats_a_token.high) == (2, 3)
    assert found.bits_a_byte.value == pytest.approx(2.75 / 4 / math.log(2))
    assert found.divergence is not None
    assert found.divergence.value == pytest.approx(0.175)
    assert found.to_json()["perplexity"]["value"] == pytest.approx(math.exp(2.75))
    assert "40 tokens of 2 documents: 2.75 [2.00, 3.00] nats a token (perplexity 15.64)" in found.line()
    alone = summarize([dataclasses.replace(each, divergence=None) for each in documents], seed=0)
    assert alone.divergence is None
    assert "from the base" not in alone.line()
