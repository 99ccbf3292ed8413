"""Cutting the clips of a stage into shards: rows that travel to the workers, or the places where these read them."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import overload

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


class Places(Sequence[pa.Table]):
    """Shards that are one row each of a table, which says where the rows of each lie."""

    def __init__(self, columns: dict[str, list[str] | list[int]]) -> None:
        self._table = pa.table(columns)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, number: int) -> pa.Table: ...

    @overload
    def __getitem__(self, number: slice) -> list[pa.Table]: ...

    def __getitem__(self, number: int | slice) -> pa.Table | list[pa.Table]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._table.take([number])  # a slice would drag bytes of its neighbours into the digest of its name


def manifest(shards: Iterable[pa.Table], attempt: Attempt) -> Places:
    """Shards that name the rows of ``shards``, to be read by ``listed_in``: neither the driver nor Ray holds them.

    They lie beside the receipts of the attempt, with which they go.
    """
    paths, groups, sizes = list[str](), list[int](), list[int]()
    shards = iter(shards)
    for number, together in enumerate(iter(lambda: list(islice(shards, _TOGETHER)), [])):
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, together[0].schema, compression="zstd") as writer:
            for rows in together:
                writer.write_table(rows, row_group_size=rows.num_rows)
        file = attempt.put(f"{RECEIPTS}/manifest/{number:05d}.parquet", sink.getvalue().to_pybytes())
        paths += [file.path] * len(together)
        groups += range(len(together))
        sizes += [rows.num_rows for rows in together]
    return Places({"path": paths, "group": groups, "rows": sizes})


def listed_in(shard: pa.Table, attempt: Attempt) -> pa.Table:
    """The rows that a shard of a ``manifest`` names."""
    (named,) = shard.to_pylist()
    with store.open_read(store.join(attempt.uri, named["path"])) as file:
        return pq.ParquetFile(file).read_row_group(named["group"])


def spans(output: Output, folder: str, size: int) -> Places:
    """Shards that name at most ``size`` rows of one committed file each, to be read by a ``Reader``.

    Raises:
        StageError: the table was written by a version that did not count its rows.
    """
    paths, starts, stops = list[str](), list[int](), list[int]()
    for file in output.files(folder):
        if file.rows is None:
            raise StageError(f"{output.uri} was written by an older version; make it anew")
        for start in range(0, file.rows, size):
            paths.append(file.path)
            starts.append(start)
            stops.append(min(start + size, file.rows))
    return Places({"path": paths, "start": starts, "stop": stops})


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
