"""What people read beside exported weights."""

import dataclasses
from pathlib import Path

import yaml

from midillm_jax.config import Config
from midillm_jax.config import load as load_config
from midillm_jax.model import hf_card
from midillm_jax.presets import LLAMA_3_2_1B

ROOT = Path(__file__).resolve().parent.parent.parent
HUB = "meta-llama/Llama-3.2-1B"


def card_of(run: Config, origin: str, **scores: float) -> tuple[dict[str, object], str]:
    text = hf_card.card(
        run.model,
        run,
        library="transformers",
        parameters=1_349_000_000,
        dtype="bfloat16",
        step=100,
        origin=origin,
        scores=scores,
    )
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_weights_grown_from_llama_say_so() -> None:
    run = dataclasses.replace(load_config(str(ROOT / "configs" / "stage2.py")), init_from="runs/stage1")
    head, body = card_of(run, HUB, loss=2.5, bits_per_note=12.25)
    assert head["license"] == "llama3.2"
    assert head["base_model"] == HUB
    assert "**Built with Llama.**" in body
    assert f"begun with {HUB}, through runs/stage1" in body
    assert "bits per note: 12.25" in body
    tokens = 100 * (run.data.music_rows + run.data.text_rows) * run.data.row_length
    assert f"{tokens:,} tokens" in body
    for source in run.data.music:
        assert f"| music | {source.path} |" in body
    (notice,) = hf_card.licences(LLAMA_3_2_1B, HUB).values()
    assert notice.decode().startswith("Llama 3.2 is licensed under the Llama 3.2 Community License")


def test_fresh_weights_claim_nothing_of_others() -> None:
    run = load_config(str(ROOT / "configs" / "demo_stage1.py"))
    head, body = card_of(run, "")
    assert "license" not in head
    assert "base_model" not in head
    assert "Llama 3.2" not in body
    assert "begun with fresh weights" in body
    assert "None is in the run's log" in body
    assert hf_card.licences(run.model, "") == {}
    # Rows of Llama's tokenizer alone make no derivative of its weights.
    assert not hf_card.is_llama(LLAMA_3_2_1B, "")


def test_a_slot_trained_model_warns_who_has_no_grammar() -> None:
    run = load_config(str(ROOT / "configs" / "demo_stage2.py"))
    assert run.loss.kind == "slot"
    assert "under the grammar only" in card_of(run, "")[1]
    full = dataclasses.replace(run, loss=dataclasses.replace(run.loss, kind="full"))
    assert "under the grammar only" not in card_of(full, "")[1]


def test_licence_files_beside_the_base_go_along(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text("as is")
    (tmp_path / "USE_POLICY.md").write_text("be kind")
    (tmp_path / "README.md").write_text("not a licence")
    found = hf_card.licences(load_config(str(ROOT / "configs" / "demo_stage1.py")).model, str(tmp_path))
    assert found == {"LICENSE.txt": b"as is", "USE_POLICY.md": b"be kind"}
