"""Cutting the clips of a stage into shards: rows that travel to the workers, or the places where these read them."""

import pyarrow as pa

from ray_asd.build import Output
from ray_asd.errors import StageError

SMALLEST, LARGEST = 32, 512  # clips of a shard
MOST_SECONDS = 3600.0  # of sound in a shard
SHARDS = 64  # as many as that, if none gets too small or too large


def shard_size(total: int, seconds: float = 0.0) -> int:
    """Clips of a shard, a multiple of 32: few enough to spread the work and lose little, enough to be worth a file.

    Fewer where they would be more than an hour of sound; ``seconds`` is that of all clips.
    """
    clips = min(max(-(-total // SHARDS), SMALLEST), LARGEST) // SMALLEST * SMALLEST
    return clips if clips * seconds <= MOST_SECONDS * total else max(1, int(MOST_SECONDS * total / seconds))


def rows(table: pa.Table, size: int) -> list[pa.Table]:
    """Shards of ``size`` rows."""
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


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
    return int(shard.num_rows)
