"""Shards whose rows lie in a manifest, as workers read them."""

import pyarrow as pa
import pytest

from ray_asd import store
from ray_asd.build import PARTS, RECEIPTS, Attempt
from ray_asd.data.listed import LISTED
from ray_asd.engine import cutting


@pytest.mark.parametrize("count", [0, 1, 200])
def test_rows_come_back_as_they_were(root: str, count: int) -> None:
    told = {"clip_id": "a", "machine_type": "fan", "section": "00", "split": "train", "attributes": [("m-n", "W")]}
    rows = [told | {"uri": f"{number}.wav", "version": str(number), "size": number} for number in range(count)]
    table, attempt = pa.Table.from_pylist(rows, schema=LISTED), Attempt(store.join(root, PARTS))
    shards = cutting.manifest(cutting.rows(table, 3), attempt)
    assert sum(map(cutting.size, shards)) == count
    read = [cutting.listed_in(shard, attempt) for shard in shards]
    assert [row for shard in read for row in shard.to_pylist()] == table.to_pylist()
    assert all(shard.schema.equals(LISTED) for shard in read)
    assert list(cutting.manifest(cutting.rows(table, 3), attempt)) == list(shards)
    assert [entry.path.partition("/")[0] for entry in store.listing(attempt.uri)] == [RECEIPTS] * -(-count // 192)
