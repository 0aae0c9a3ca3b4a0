"""What a person may ask for."""

from typing import Any

import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference.request import MusicRequest, TokenRequest
from midillm_jax.music.grammar import Limits


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outputs": 0}, "outputs is 0; expected 1 or more"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"seed": 1 << 32}, "seed is 4294967296"),
        ({"temperature": -0.1}, "temperature is -0.1; expected 0, or 0.01 to 100"),
        ({"temperature": 1e-40}, "temperature is 1e-40"),
        ({"temperature": 1e300}, "temperature is 1e+300"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; expected 0.000001 to 1"),
        ({"top_p": 1e-50}, "top_p is 1e-50"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_notes": 0}, "max_notes is 0; expected 1 to 2147483647"),
        ({"max_notes": 1 << 31}, "max_notes is 2147483648"),
        ({"max_seconds": 100.5}, "max_seconds is 100.5; expected 0.01 to 100"),
        ({"max_seconds": 0.001}, "max_seconds is 0.001"),
        ({"guidance": -1.0}, "guidance is -1.0; expected 0 to 20"),
        ({"guidance": float("nan")}, "guidance is nan"),
    ],
)
def test_values_out_of_range_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        MusicRequest("a waltz", **fields)
    assert said in str(error.value)


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="prompt: character 3 is half of a pair"):
        MusicRequest("a \ud83c waltz")


def test_limits_are_in_ticks() -> None:
    request = MusicRequest("a waltz", max_seconds=12.34, max_notes=5, programs=(0, 128))
    assert request.limits(closes=False) == Limits(programs=(0, 128), end_ticks=1234, max_notes=5, closes=False)


def test_length_counts_prompt_history_and_what_is_to_come() -> None:
    request = TokenRequest((1, 2), Limits(), 10, temperature=1, top_p=1, seed=0, history=(0, 10_010, 11_060))
    assert request.length == 2 + 3 + 30
