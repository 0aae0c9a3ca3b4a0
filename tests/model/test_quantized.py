"""The int8 layout: what is rounded and by how much. vLLM runs one in tests/inference/test_vllm.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.model import hf, hf_write, quantized
from midillm_jax.text.tokenizer import Tokenizer
from tests.model.test_hf import config, tokenizer, weights  # noqa: F401 (fixtures)


def test_a_row_is_off_by_half_a_step_at_most() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 64)).astype(np.float32) * rng.choice([1e-4, 1, 100], (50, 1)).astype(np.float32)
    rows[7] = 0
    values, scales = quantized.int8(rows)
    assert values.dtype == np.int8
    assert scales.shape == (50, 1)
    assert (np.abs(values * scales - rows) <= scales * 0.5001).all()
    assert set(np.abs(values).max(1).tolist()) == {0, 127}
    assert (values[7] == 0).all()


@pytest.mark.parametrize("shard_bytes", [None, 100_000])
def test_projections_are_rounded_and_the_rest_is_bfloat16(
    config: ModelConfig,  # noqa: F811
    tokenizer: Tokenizer,  # noqa: F811
    tmp_path: Path,
    shard_bytes: int | None,
) -> None:
    params = weights(config)
    folder = hf_write.write_hf(tmp_path / "int8", config, params, tokenizer, dtype="int8", shard_bytes=shard_bytes)
    hf_write.write_hf(tmp_path / "exact", config, params, tokenizer)
    exact = safetensors.numpy.load_file(tmp_path / "exact" / hf.WEIGHTS_FILE)
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 1) == (shard_bytes is not None)
    found = {name: tensor for file in files for name, tensor in safetensors.numpy.load_file(file).items()}
    if shard_bytes is not None:
        index = json.loads((folder / hf.INDEX_FILE).read_text())
        assert index["weight_map"].keys() == found.keys()
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    projections = {name for name in exact if name.endswith("_proj.weight")}
    assert len(projections) == 7 * config.num_layers
    assert found.keys() == exact.keys() | {f"{name}_scale" for name in projections}
    for name, tensor in exact.items():
        if name in projections:
            assert found[name].dtype == np.int8
            np.testing.assert_allclose(
                found[name] * found[f"{name}_scale"], tensor, atol=0.51 * float(found[f"{name}_scale"].max())
            )
        else:
            assert found[name].dtype.name == "bfloat16"
            np.testing.assert_array_equal(found[name], tensor.astype(found[name].dtype))
    fields = json.loads((folder / "config.json").read_text())
    assert fields["dtype"] == "bfloat16"
    assert fields["quantization_config"]["quant_method"] == "compressed-tensors"


def test_it_is_not_read_back(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    folder = hf_write.write_hf(tmp_path / "int8", config, weights(config), tokenizer, dtype="int8")
    with pytest.raises(UserError, match="quantization_config; expected unquantised weights"):
        hf.read_hf(folder)
