"""A model that was never trained, and a piece, for tests of what is asked of engines."""

from pathlib import Path

import jax

from midillm_jax.config import ModelConfig
from midillm_jax.data.demo import write_band
from midillm_jax.model.hf_write import write_hf
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.text.tokenizer import Tokenizer, train_sentencepiece

CONFIG = ModelConfig(
    text_vocab_size=300,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    context_length=512,
    rope_theta=1000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)


def words_tokenizer(base: Path) -> Tokenizer:
    """A tokenizer of a few words."""
    words = [f"a {colour} {thing} plays" for colour in ("warm", "cold", "bright") for thing in ("drum", "horn", "lute")]
    return train_sentencepiece(words, base / "words.model", CONFIG.text_vocab_size)


def untrained(base: Path, config: ModelConfig = CONFIG, name: str = "export") -> Path:
    """The folder of an exported model with random weights."""
    params = Definition(config, INFERENCE).init(jax.random.key(0))
    return write_hf(base / name, config, params, words_tokenizer(base))


def band_files(base: Path, pieces: int) -> list[Path]:
    """Pieces of the made-up band, as .mid files."""
    write_band(base / "band", pieces, seed=3)
    return sorted((base / "band" / "midi").glob("*.mid"))
