import math

import pytest

from midillm_jax.training import metrics


def test_figures_are_bits_and_means() -> None:
    shown = metrics.figures(
        {
            "objective": 30.0,
            "weight": 10.0,
            "text_nats": 8.0,
            "text_tokens": 4.0,
            "onset_nats": 6 * math.log(2),
            "duration_nats": 4 * math.log(2),
            "note_nats": 2 * math.log(2),
            "music_tokens": 6.0,
            "notes": 2.0,
        }
    )
    assert shown["loss"] == pytest.approx(3.0)
    assert shown["text_loss"] == pytest.approx(2.0)
    assert shown["music_loss"] == pytest.approx(12 * math.log(2) / 6)
    assert shown["onset_bits"] == pytest.approx(3.0)
    assert shown["duration_bits"] == pytest.approx(2.0)
    assert shown["note_bits"] == pytest.approx(1.0)
    assert shown["bits_per_note"] == pytest.approx(6.0)


def test_a_figure_without_targets_is_left_out() -> None:
    nothing = dict.fromkeys(
        ("objective", "weight", "text_nats", "text_tokens", "onset_nats", "duration_nats", "note_nats", "notes"), 0.0
    )
    assert metrics.figures(nothing) == {}
    assert metrics.figures(nothing | {"text_nats": 1.0, "text_tokens": 2.0}) == {"text_loss": 0.5}
