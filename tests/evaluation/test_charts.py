"""Charts of several runs: everything inside its frame, at the right height, and told apart without colour."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from midillm_jax.evaluation import axes
from midillm_jax.evaluation.charts import MOST_RUNS, Chart, Line, draw, styles
from midillm_jax.evaluation.run_log import Points

WIDTH, HEIGHT = 400, 226


def chart(*lines: tuple[Points, Points], scale: str = "falling", least: float = 0.0) -> ElementTree.Element:
    drawn = tuple(Line(style, *line) for style, line in zip(styles(len(lines)), lines, strict=True))
    return ElementTree.fromstring(draw(Chart("Loss <1>", "nats", drawn, scale, "{:g}".format, least)))  # type: ignore[arg-type]


def numbers(element: ElementTree.Element) -> list[tuple[float, float]]:
    """Points of a path that is all straight lines."""
    pairs = [pair.split() for pair in re.split("[ML]", element.attrib["d"])[1:]]
    return [(float(x), float(y)) for x, y in pairs]


def of(svg: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [element for element in svg.iter() if element.attrib.get("class") == kind]


def letters(svg: ElementTree.Element) -> dict[str, tuple[float, float]]:
    return {each.text or "": (float(each.attrib["x"]), float(each.attrib["y"])) for each in of(svg, "letter")}


def test_a_line_falls_to_the_right() -> None:
    svg = chart((((0, 4.0), (50, 3.0), (100, 2.0)), ()))
    (line,) = of(svg, "held")
    (x0, y0), (x1, y1), (x2, y2) = numbers(line)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert y0 < y1
    assert svg.attrib["aria-label"] == "Loss <1>, nats, over steps"


def test_what_falls_far_is_drawn_on_a_logarithmic_axis() -> None:
    """From 100 to 10 is as far as from 10 to 1."""
    svg = chart((((0, 100.0), (1, 10.0), (2, 1.0)), ()))
    (_, y0), (_, y1), (_, y2) = numbers(of(svg, "held")[0])
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert "logarithmic" in [element.text for element in svg.iter()]


def test_training_is_thin_beside_held_out_data() -> None:
    svg = chart((((1, 3.0), (2, 2.0)), ((2, 2.5),)), (((1, 3.0), (2, 2.2)), ()))
    assert len(of(svg, "train")) == 1
    assert len(of(svg, "held")) == 2
    assert len(of(svg, "mark")) == 1


def test_runs_differ_in_more_than_colour() -> None:
    looks = [(style.letter, style.mark, style.dashed) for style in styles(MOST_RUNS)]
    assert len({letter for letter, _, _ in looks}) == MOST_RUNS
    assert len({look[1:] for look in looks}) == MOST_RUNS
    assert len({style.colour for style in styles(5)}) == 5


@pytest.mark.parametrize("ends", [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.01, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
def test_letters_do_not_cover_each_other(ends: list[float]) -> None:
    svg = chart(*[(((0, 4.0), (9, end)), ()) for end in ends], scale="from zero")
    heights = sorted(y for _, y in letters(svg).values())
    assert len(heights) == len(ends)
    assert all(below - above >= 13.9 for above, below in itertools.pairwise(heights))
    assert all(0 < y < HEIGHT - 30 for y in heights)


def test_a_letter_stands_where_its_line_ends() -> None:
    svg = chart((((0, 4.0), (40, 1.0)), ()), (((0, 4.0), (100, 1.0)), ()))
    for line, (x, y) in zip(of(svg, "held"), letters(svg).values(), strict=True):
        end_x, end_y = numbers(line)[-1]
        assert end_x < x < end_x + 15
        assert y == pytest.approx(end_y + 4.5, abs=0.2)


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    noisy = tuple((float(step), 5.0 + step % 2) for step in range(10_001))
    line, _ = of(chart((noisy, ()), (((0, 3.0), (1, 8.0)), ())), "held")
    points = numbers(line)
    assert len(points) <= 240
    assert points[0][0] < points[1][0] < points[-1][0]
    middle = [y for _, y in points[5:-5]]
    assert max(middle) - min(middle) < 5, "the mean over a stretch hides the noise"


@pytest.mark.parametrize("values", [(3.0, 3.0), (0.0, 0.0), (1e-7, 3e-7), (1e-6, 5e6), (-2.0, 1.0), (0.0, 1e-9)])
@pytest.mark.parametrize("scale", ["falling", "from zero"])
def test_any_range_can_be_drawn(values: tuple[float, float], scale: str) -> None:
    svg = chart((tuple(enumerate(values)), ()), scale=scale)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for line in of(svg, "held") for x, y in numbers(line))
    assert 2 <= len(of(svg, "grid")) <= 8


def test_next_to_nothing_looks_like_it() -> None:
    (line,) = of(chart((((0, 0.0), (9, 0.001)), ()), scale="from zero", least=0.1), "held")
    assert abs(numbers(line)[0][1] - numbers(line)[1][1]) < 3


@pytest.mark.parametrize(("low", "high"), [(1.0, 8.0), (0.2, 33.0), (1e-5, 1e5), (1e-9, 1e9), (3.1, 30.0)])
def test_a_logarithmic_axis_has_round_lines_inside_its_ends(low: float, high: float) -> None:
    axis = axes.logarithmic(low, high, most=7)
    assert axis.low < low < high < axis.high
    assert 2 <= len(axis.ticks) <= 7
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert all(f"{tick:.0e}"[0] in "1235" for tick in axis.ticks)
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == pytest.approx(1)
