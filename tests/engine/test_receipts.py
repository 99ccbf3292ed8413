"""Receipts: what an earlier try has done, unless another process clears them away."""

import pyarrow as pa
import pytest

from ray_asd import build, store
from ray_asd.build import Attempt
from ray_asd.engine import cutting, receipts
from ray_asd.engine.progress import silent


@pytest.fixture
def attempt(root: str) -> Attempt:
    return Attempt(store.join(root, build.PARTS))


def summed(attempt: Attempt) -> receipts.Sum:
    shards = cutting.rows(pa.table({"number": range(6)}), 2)
    found = receipts.Sum("count", shards, silent)
    for name in found.names[:2]:
        done = receipts.Done([], {"rows": 2})
        store.write(receipts.place(attempt, f"{name}.json"), receipts.as_json(done).encode())
    return found


def test_what_an_earlier_try_has_done_counts(attempt: Attempt) -> None:
    found = summed(attempt)
    found.add_receipts(attempt)
    assert found.missing == [2]


def test_receipts_that_another_process_clears_away_are_none(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    found, files = summed(attempt), store.files

    def list_then_clear(folder: str) -> list[str]:
        listed = files(folder)
        store.remove(folder)
        return listed

    monkeypatch.setattr(store, "files", list_then_clear)
    found.add_receipts(attempt)
    assert found.missing == [0, 1, 2]


def test_a_shard_is_called_the_same_however_its_place_is_kept() -> None:
    columns = {"path": ["clips/a.parquet", "clips/b.parquet"], "start": [0, 512], "stop": [512, 600]}
    alone = [pa.table({name: [values[row]] for name, values in columns.items()}) for row in range(2)]
    places = cutting.Places(columns)
    assert receipts.Sum("count", places, silent).names == receipts.Sum("count", alone, silent).names
    assert list(places) == alone
    assert places[:1] == alone[:1]
    assert sum(map(cutting.size, places)) == 600
