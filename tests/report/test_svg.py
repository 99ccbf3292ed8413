"""Charts: where marks lie, what an axis says, and that words stay words."""

import pytest

from ray_asd.report import svg
from ray_asd.report.svg import Axes

AXES = Axes((0.0, 10.0), (0.0, 1.0), "steps", "loss")


def test_values_lie_between_the_margins_and_larger_ones_higher() -> None:
    assert AXES.at_x(0) == AXES.left
    assert AXES.at_x(0) < AXES.at_x(5) < AXES.at_x(10) < svg.WIDTH
    assert AXES.height > AXES.at_y(0) > AXES.at_y(0.5) > AXES.at_y(1) > 0
    flat = Axes((3.0, 3.0), (0.0, 0.0), "", "")
    assert (flat.at_x(3.0), flat.at_y(0.0)) == (AXES.left, AXES.at_y(0))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 10, [0, 5, 10]),
        (0, 8, [0, 2, 4, 6, 8]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (37, 100, [40, 60, 80, 100]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_few_and_round(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_small_numbers_share_a_power_of_ten() -> None:
    drawing = svg.draw(Axes((0.0, 4e-5), (0.0, 2.0), "score", "clips"), "", [])
    assert "score / 1e-5" in drawing
    assert ">4<" in drawing
    assert "e-05" not in drawing


def test_a_drawing_says_what_it_shows_and_takes_words_for_words() -> None:
    drawing = svg.draw(Axes((0, 1), (0, 1), "a < b", "y"), 'of "x" & <y>', [svg.text(1, 2, "<z>")])
    assert 'role="img" aria-label="of &#34;x&#34; &amp; &lt;y&gt;"' in drawing
    assert "a &lt; b" in drawing
    assert ">&lt;z&gt;</text>" in drawing


def test_a_histogram_rises_and_falls_between_its_edges() -> None:
    path = svg.bars(AXES, [0, 5, 10], [1, 0.5], "normal")
    zero, half, one = (f"{AXES.at_y(value):.1f}" for value in (0, 0.5, 1))
    left, middle, right = (f"{AXES.at_x(value):.1f}" for value in (0, 5, 10))
    assert f"M{left},{zero}V{one}H{middle}V{half}H{right}V{zero}Z" in path
