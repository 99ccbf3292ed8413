"""Tables in a file instead of memory: rows come back as they were, sorted and joined as Arrow would do it at once."""

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ray_asd.data import spooled
from ray_asd.data.spooled import Spooled, joined

SCHEMA = pa.schema([("key", pa.string()), ("number", pa.int64()), ("told", pa.map_(pa.string(), pa.string()))])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few hundred rows are many."""
    for name, size in (("_RUN", 20), ("_OF_RUN", 7), ("_TOGETHER", 3), ("_IN_MEMORY", 100)):
        monkeypatch.setattr(spooled, name, size)


def filled(keys: list[str]) -> Spooled:
    found = Spooled(SCHEMA, batch=16)
    for number, key in enumerate(keys):
        found.add(key=key, number=number, told=[("of", key)])
    return found


@pytest.mark.parametrize("count", [0, 1, 16, 333])
def test_rows_come_back_as_they_were_in_any_sizes(count: int) -> None:
    rows = filled([str(number) for number in range(count)])
    table = rows.table()
    assert (len(rows), table.num_rows, table.schema) == (count, count, SCHEMA)
    assert [row["number"] for row in rows.rows()] == list(range(count))
    copied = Spooled(SCHEMA)
    copied.write(table)
    assert copied.table().equals(table)
    sizes = [5, 40, 1, 300, 9, 9]
    cut = list(rows.cut(sizes))
    assert sum(part.num_rows for part in cut) == min(count, sum(sizes))
    assert [part.num_rows for part in cut[:-1]] == sizes[: max(len(cut) - 1, 0)]
    assert pa.concat_tables([SCHEMA.empty_table(), *cut]).equals(table)


@pytest.mark.parametrize("kinds", [1, 3, 40, 10_000])
def test_sorted_as_at_once_and_equal_keys_stay_in_order(kinds: int) -> None:
    chance = random.Random(kinds)
    rows = filled([f"é{chance.randrange(kinds)}" for _ in range(777)])
    found = rows.in_order("key")
    assert found.table().equals(rows.table().sort_by("key"))
    assert found.in_order("key") is found
    assert rows.in_order("number") is rows


@pytest.mark.parametrize(("left", "right"), [(1, 300), (300, 1), (300, 300), (0, 10), (10, 0), (20, 3000)])
def test_joined_as_at_once(left: int, right: int) -> None:
    chance = random.Random(left)
    one, other = (filled(sorted(str(chance.randrange(400)) for _ in range(count))) for count in (left, right))
    pairs = list(joined(one, other, "key"))
    assert pa.concat_tables([SCHEMA.empty_table(), *(mine for mine, _ in pairs)]).equals(one.table())
    found = pa.concat_tables([SCHEMA.empty_table(), *(known for _, known in pairs)])
    places = pc.index_in(one.table()["key"], other.table()["key"].combine_chunks())
    assert found.equals(other.table().take(places))
