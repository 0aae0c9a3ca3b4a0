"""Grids by name, and the grid that onsets keep to."""

import random

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.clock import bar_map
from midillm_jax.music.grid import Grid, estimated_grid, grid_named
from tests.music.files import BEAT, song


def test_a_grid_that_is_none_is_refused() -> None:
    assert grid_named(" 1/16 + 1/16T ") == Grid((4, 6))
    with pytest.raises(UserError, match="'1/5' is no grid; join some of 1/4, 1/8"):
        grid_named("1/5")


@pytest.mark.parametrize("divisions", [(1,), (2,), (3,), (4,), (4, 3), (6,), (8,)])
def test_the_grid_of_onsets_is_found(divisions: tuple[int, ...]) -> None:
    rng = random.Random(5)
    points = [round(BEAT * (beat + part / parts)) for beat in range(32) for parts in divisions for part in range(parts)]
    line = bar_map(song(()))
    played = [max(point + rng.choice((-6, 0, 0, 5)), 0) for point in points]
    assert estimated_grid(played, line, BEAT) == Grid(divisions)
    assert estimated_grid((rng.randrange(32 * BEAT) for _ in range(500)), line, BEAT) is None
    assert estimated_grid([], line, BEAT) is None
