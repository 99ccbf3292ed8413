"""Differences between systems, and the effect of each part."""

import pyarrow as pa
import pytest

from made_up import recipe
from ray_asd import tables
from ray_asd.report.differences import Differences, differences, effects, matrix
from ray_asd.report.rows import Parts
from ray_asd.report.table1 import System


def system(name: str, **parts: bool) -> System:
    of = Parts.of(recipe("hubert", **parts)) if parts else None
    return System(name, of, [0], 0.5, None, 0.4, 0.6, {}, "uri", None, None)


NONE = system("hubert", ws=False)
WS = system("hubert+WS", ws=True)
SA = system("hubert+WS+SA", ws=True, sa=True)
OTHER = system("hubert+WS+SA [x=1]", ws=True, sa=True)
BASELINE = system("baseline")


@pytest.fixture
def pairs() -> pa.Table:
    rows = [
        ("hubert", "hubert+WS", -0.07, -0.10, -0.04),
        ("hubert", "hubert+WS+SA", -0.08, -0.11, -0.05),
        ("hubert+WS", "hubert+WS+SA", -0.01, -0.03, 0.01),
        ("baseline", "hubert", 0.2, 0.1, 0.3),
        ("baseline", "hubert+WS", 0.13, 0.03, 0.23),
        ("baseline", "hubert+WS+SA", 0.12, 0.02, 0.22),
    ]
    names = ("system_a", "system_b", "difference", "low", "high")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=tables.PAIRS)


@pytest.fixture
def found(pairs: pa.Table) -> Differences:
    return differences(pairs)


def test_the_other_order_is_the_other_sign(found: Differences) -> None:
    assert (found["hubert+WS", "hubert"].value, found["hubert+WS", "hubert"].low) == (0.07, 0.04)
    assert found["hubert+WS", "hubert"].high == 0.10
    assert found["hubert+WS", "hubert"].is_real
    assert not found["hubert+WS", "hubert+WS+SA"].is_real


def test_an_effect_is_between_systems_that_differ_in_one_part(found: Differences) -> None:
    table = effects(found, [NONE, WS, SA, OTHER, BASELINE], "uri")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["WS", "hubert to hubert+WS", "+7.00 [+4.00, +10.00]", "real"],
        ["SA", "hubert+WS to hubert+WS+SA", "+1.00 [-1.00, +3.00]", "not told from none"],
    ]


def test_the_matrix_is_row_minus_column(found: Differences) -> None:
    table = matrix(found, [NONE, WS, SA, BASELINE], "uri")
    assert table.header == ["", "1", "2", "3", "4"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["1 hubert", "", "-7.00*", "-8.00*", "-20.00*"],
        ["2 hubert+WS", "+7.00*", "", "-1.00", "-13.00*"],
        ["3 hubert+WS+SA", "+8.00*", "+1.00", "", "-12.00*"],
        ["4 baseline", "+20.00*", "+13.00*", "+12.00*", ""],
    ]
