"""Shapes against what their publishers say of them."""

import pytest

from midillm_jax.model.llama import parameter_count
from midillm_jax.presets import LLAMA_3_2_1B, PRESETS, text_only


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("llama-3.2-1b", 1_235_814_400), ("llama-3.2-3b", 3_212_749_824), ("smollm2-135m", 134_515_008)],
)
def test_a_text_only_preset_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert parameter_count(text_only(PRESETS[name])) == parameters


def test_the_grown_table_is_midi_llms() -> None:
    assert LLAMA_3_2_1B.vocab_size == 183_286
    assert LLAMA_3_2_1B.padded_vocab_size == 183_296
    assert parameter_count(LLAMA_3_2_1B) == 1_235_814_400 + 55_030 * 2048


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_padded_tables_divide_over_a_mesh(name: str, tensor: int) -> None:
    assert PRESETS[name].padded_vocab_size % (8 * tensor) == 0, "a device's rows are not whole TPU tiles of 8"
