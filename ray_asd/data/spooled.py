"""Tables of any length in bounded memory: batches of rows in a temporary file, read, sorted and joined as they pass."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_BATCH = 1 << 12  # rows of a batch, and the most that are Python objects at a time
_RUN = 1 << 15  # rows that are sorted in memory
_OF_RUN = 1 << 10  # of which so many are at hand while runs are merged
_TOGETHER = 16  # runs that become one
_IN_MEMORY = 1 << 20  # bytes until which there is no file
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class Spooled:
    """Rows of ``schema`` in the order in which they came. Its file goes with it."""

    def __init__(self, schema: pa.Schema, batch: int | None = None) -> None:
        self.schema = schema
        self._batch = batch or _BATCH
        self._num_rows = 0
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed once nothing refers to it
        self._batches: list[tuple[int, int]] = []  # offset and length of each
        self._waiting: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._waiting.append(row)
        if len(self._waiting) == self._batch:
            self._flush()

    def write(self, table: pa.Table) -> None:
        """Add all rows of ``table``."""
        self._flush()
        for start in range(0, table.num_rows, self._batch):
            self._put(table.slice(start, self._batch))

    def __len__(self) -> int:
        return self._num_rows + len(self._waiting)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, some at a time."""
        self._flush()
        return map(self._read, range(len(self._batches)))

    def rows(self) -> Iterator[dict[str, Any]]:
        for table in self.tables():
            yield from table.to_pylist()

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.concat_tables([self.schema.empty_table(), *self.tables()])

    def cut(self, sizes: Iterable[int]) -> Iterator[pa.Table]:
        """The rows in tables of these sizes, one after the other; the last may be smaller."""
        source, held = self.tables(), self.schema.empty_table()
        for size in sizes:
            while held.num_rows < size and (more := next(source, None)) is not None:
                held = pa.concat_tables([held, more])
            if not held.num_rows:
                return
            yield held.slice(0, size).combine_chunks()
            held = held.slice(size)

    def in_order(self, column: str) -> "Spooled":
        """The same rows sorted by ``column``, equal ones in the order in which they came; itself if that is so."""
        if self._is_in_order(column):
            return self
        levels: list[list[Spooled]] = []  # of runs; those of each level came before those of the one below
        for rows in self.cut(repeat(_RUN)):
            run, level = Spooled(self.schema, _OF_RUN), 0
            run.write(_sorted(rows, column))
            while level < len(levels) and len(levels[level]) == _TOGETHER - 1:
                run, levels[level] = _merged([*levels[level], run], column, Spooled(self.schema, _OF_RUN)), []
                level += 1
            if level == len(levels):
                levels.append([])
            levels[level].append(run)
        return _merged([run for runs in reversed(levels) for run in runs], column, Spooled(self.schema))

    def _is_in_order(self, column: str) -> bool:
        last = None
        for table in self.tables():
            values = table[column].combine_chunks()
            if last is not None and last > values[0].as_py():
                return False
            if pc.all(pc.less_equal(values[:-1], values[1:])).as_py() is False:
                return False
            last = values[-1].as_py()
        return True

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._put(pa.Table.from_pylist(waiting, self.schema))

    def _put(self, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=_OPTIONS) as stream:
            stream.write_table(table.combine_chunks())
        offset = self._file.seek(0, 2)
        self._batches.append((offset, self._file.write(sink.getvalue())))
        self._num_rows += table.num_rows

    def _read(self, number: int) -> pa.Table:
        offset, length = self._batches[number]
        self._file.seek(offset)
        return pa.ipc.open_stream(self._file.read(length)).read_all()


def _sorted(table: pa.Table, column: str) -> pa.Table:
    return table.take(pc.sort_indices(table[column].combine_chunks()))


class _Head:
    """What is at hand of a sorted run, from ``first`` to ``last``; nothing once it ``is_over``."""

    def __init__(self, run: Spooled, column: str) -> None:
        self._rest, self._column = run.tables(), column
        self.is_over = False
        self._hold(next(self._rest))

    def _hold(self, table: pa.Table) -> None:
        self._table = table
        self.first, self.last = (table[self._column][place].as_py() for place in (0, -1))

    def until(self, bound: Any) -> Iterator[pa.Table]:
        """Takes the rows up to ``bound``."""
        while not self.is_over and self.first <= bound:
            count = pc.sum(pc.less_equal(self._table[self._column], bound)).as_py()
            yield self._table.slice(0, count)
            rest = self._table.slice(count) if count < self._table.num_rows else next(self._rest, None)
            self.is_over = rest is None
            if rest is not None:
                self._hold(rest)


def _merged(runs: Sequence[Spooled], column: str, merged: Spooled) -> Spooled:
    """``merged``, with the rows of sorted ``runs``: always all that is not behind the first end of what is at hand of
    them, so that equal values come together."""
    heads = [_Head(run, column) for run in runs]
    while heads:
        bound = min(head.last for head in heads)
        merged.write(_sorted(pa.concat_tables([table for head in heads for table in head.until(bound)]), column))
        heads = [head for head in heads if not head.is_over]
    return merged


def joined(left: Spooled, right: Spooled, key: str) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The rows of ``left``, and beside each the first row of ``right`` with the same ``key``, or nulls.

    Both are in order of ``key``.
    """
    rest, held = right.tables(), right.schema.empty_table()
    for table in left.tables():
        last = table[key][-1].as_py()
        held = _needed(held, key, table[key])
        while not (held.num_rows and held[key][-1].as_py() > last) and (more := next(rest, None)) is not None:
            held = pa.concat_tables([held, _needed(more, key, table[key])])
        yield table, held.take(pc.index_in(table[key], held[key].combine_chunks()))


def _needed(table: pa.Table, key: str, keys: pa.ChunkedArray) -> pa.Table:
    """The rows of ``table`` that have one of these ``keys``, in order, or come behind them."""
    is_one, is_behind = pc.is_in(table[key], keys.combine_chunks()), pc.greater(table[key], keys[-1])
    return table.filter(pc.or_(is_one, is_behind))
