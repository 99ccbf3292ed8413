import time

from ray_asd.benchmarks import measure


def test_variants_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    times = measure.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert [len(taken.seconds) for taken in times.values()] == [3, 3]


def test_the_fastest_has_the_smallest_median() -> None:
    assert measure.fastest({"slow": lambda: time.sleep(0.05), "fast": lambda: None}) == "fast"
    assert measure.Times((3.0, 1.0, 2.0)).median == 2.0
    assert str(measure.Times((3.0, 1.0, 2.0))) == "2 (1-3)"


def test_hardware_names_versions_of_what_is_installed() -> None:
    line = measure.hardware("transformers", "no-such-package")
    assert "torch 2." in line
    assert "transformers 5." in line
    assert "no-such-package" not in line
