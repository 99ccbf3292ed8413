"""Cutting the clips of a stage into shards: rows that travel to the workers, or the places where these read them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ray_asd import store
from ray_asd.build import RECEIPTS, Attempt, Output
from ray_asd.errors import StageError

SMALLEST, LARGEST = 32, 512  # clips of a shard
MOST_SECONDS = 3600.0  # of sound in a shard
SHARDS = 64  # as many as that, if none gets too small or too large
_TOGETHER = 64  # shards in one file of a manifest


def shard_size(total: int, seconds: float = 0.0) -> int:
    """Clips of a shard, a multiple of 32: few enough to spread the work and lose little, enough to be worth a file.

    Fewer where they would be more than an hour of sound; ``seconds`` is that of all clips.
    """
    return at_most(min(max(-(-total // SHARDS), SMALLEST), LARGEST) // SMALLEST * SMALLEST, total, seconds)


def at_most(clips: int, total: int, seconds: float) -> int:
    """``clips``, or as many as are an hour of sound; ``seconds`` is that of all ``total`` clips."""
    return clips if clips * seconds <= MOST_SECONDS * total else max(1, int(MOST_SECONDS * total / seconds))


def rows(table: pa.Table, size: int) -> list[pa.Table]:
    """Shards of ``size`` rows."""
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


def manifest(shards: Sequence[pa.Table], attempt: Attempt) -> list[pa.Table]:
    """Shards that name the rows of ``shards``, to be read by ``listed_in``: neither the driver nor Ray holds them.

    They lie beside the receipts of the attempt, with which they go.
    """
    found = []
    for first in range(0, len(shards), _TOGETHER):
        together = shards[first : first + _TOGETHER]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, together[0].schema, compression="zstd") as writer:
            for rows in together:
                writer.write_table(rows, row_group_size=rows.num_rows)
        file = attempt.put(f"{RECEIPTS}/manifest/{first // _TOGETHER:05d}.parquet", sink.getvalue().to_pybytes())
        for group, rows in enumerate(together):
            found.append(pa.table({"path": [file.path], "group": [group], "rows": [rows.num_rows]}))
    return found


def listed_in(shard: pa.Table, attempt: Attempt) -> pa.Table:
    """The rows that a shard of a ``manifest`` names."""
    (named,) = shard.to_pylist()
    with store.open_read(store.join(attempt.uri, named["path"])) as file:
        return pq.ParquetFile(file).read_row_group(named["group"])


def spans(output: Output, folder: str, size: int) -> list[pa.Table]:
    """Shards that name at most ``size`` rows of one committed file each, to be read by a ``Reader``.

    Raises:
        StageError: the table was written by a version that did not count its rows.
    """
    found = []
    for file in output.files(folder):
        if file.rows is None:
            raise StageError(f"{output.uri} was written by an older version; make it anew")
        for start in range(0, file.rows, size):
            stop = min(start + size, file.rows)
            found.append(pa.table({"path": [file.path], "start": [start], "stop": [stop]}))
    return found


class Reader:
    """Reads the rows that a shard of ``spans`` names; the file it read last is kept."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._path, self._table = "", pa.table({})

    def __call__(self, span: pa.Table) -> pa.Table:
        (named,) = span.to_pylist()
        if named["path"] != self._path:
            self._path, self._table = named["path"], self._output.part(named["path"])
        return self._table.slice(named["start"], named["stop"] - named["start"])


def size(shard: pa.Table) -> int:
    """Its clips."""
    if shard.column_names == ["path", "start", "stop"]:
        return int(shard["stop"][0].as_py() - shard["start"][0].as_py())
    if shard.column_names == ["path", "group", "rows"]:
        return int(shard["rows"][0].as_py())
    return int(shard.num_rows)
