"""What ingest makes of recordings: rows of CLIPS, REJECTS and INSPECTED, and what they add to the stage's counts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from ray_asd import tables
from ray_asd.build import digest_of
from ray_asd.config import SAMPLE_RATE

CONTENT = "content"  # among the counts: the sum of the digests of CLIPS rows
_PLACES = ("uri", "duplicate_of", "pack", "pack_row")  # columns that say nothing of a recording itself
_MEASURED = ("level", "clipped")  # whose last digits another processor may round in another way

Row = Mapping[str, Any]


def reject(uri: str, reason: str, detail: str, size: int | None) -> dict[str, Any]:
    """A REJECTS row; ``reason`` is a key of ``reasons.REJECTED``."""
    return {"uri": uri, "reason": reason, "detail": detail, "size_bytes": size}


def unread(uri: str, error: OSError, size: int | None) -> dict[str, Any]:
    """A REJECTS row of what ``error``, its own, keeps from being read."""
    return reject(uri, "missing" if isinstance(error, FileNotFoundError) else "unreadable", str(error), size)


def clips_table(rows: Iterable[Row]) -> pa.Table:
    """CLIPS of these rows."""
    return tables.conform(pa.Table.from_pylist(list(rows), schema=tables.CLIPS), tables.CLIPS)


def rejects_table(rows: Iterable[Row]) -> pa.Table:
    """REJECTS of these rows."""
    return tables.conform(pa.Table.from_pylist(list(rows), schema=tables.REJECTS), tables.REJECTS)


def inspected_table(rows: Iterable[Row]) -> pa.Table:
    """INSPECTED of these rows."""
    return tables.conform(pa.Table.from_pylist(list(rows), schema=tables.INSPECTED), tables.INSPECTED)


def clip_counts(rows: Iterable[Row]) -> Counter[str]:
    """Clips, and of each split how many and of how many samples; what is odd of them, and their content.

    The order in which they come does not matter.
    """
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({"clips": 1, row["split"]: 1, f"{row['split']}_samples": row["num_samples"]})
        counts.update(odd for odd in ("dead_channels", "streamed") if row[odd])
        counts[CONTENT] += _digest(row)
    return counts


def most_seconds(counts: Mapping[str, int]) -> float:
    """How long all clips of such counts may be together: as long as they are, were all recorded at 16 kHz."""
    return sum(count for name, count in counts.items() if name.endswith("_samples")) / SAMPLE_RATE


def reject_counts(rows: Iterable[Row]) -> Counter[str]:
    """Rejects, and how many of each reason."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(["rejects", f"reject_{row['reason']}"])
    return counts


def _digest(row: Row) -> int:
    return int(digest_of({name: str(value) for name, value in row.items() if name not in _PLACES + _MEASURED}), 16)
