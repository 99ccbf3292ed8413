"""The healthy clips that a model of a detector knows, laid out for search: rows of HEALTHY and their vectors.

Every machine type and section is one run of rows, its bank first, so that any run of rows can be searched by itself.
It holds each recording once, however many names that has, and in an order that no name has part in. Laid out again with
more clips, or with fewer, it is what laying out these at once gives.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import store, tables
from ray_asd.build import Output
from ray_asd.errors import UserError
from ray_asd.stages.training.usage import Provenance
from ray_asd.tables import Folder

VECTORS = "vectors.f32"  # float32 [N, E], little-endian
GROUP = ("machine_type", "section")
_BY_PRECEDENCE = ("trained", "bank", "unseen")  # roles: of a recording with two names and two roles the first holds

Group = tuple[str, str]
"""Machine type and section."""
Chunks = Callable[[], Iterator[np.ndarray]]
"""Reads vectors, some at a time, in the order of the rows they belong to."""


@dataclass(frozen=True)
class Range:
    """Rows of a group: from ``start`` on its bank, from ``bank`` on the others, up to ``stop``."""

    start: int
    bank: int
    stop: int

    @property
    def size(self) -> int:
        """Clips in the bank."""
        return self.bank - self.start


@dataclass(frozen=True)
class Source:
    """Some HEALTHY rows, and their vectors; None for a baseline, whose scores stand in the rows."""

    rows: pa.Table
    chunks: Chunks | None


@dataclass(frozen=True)
class Healthy:
    """HEALTHY rows in order, and their vectors [N, E] in a mapped file; None for a baseline."""

    rows: pa.Table
    vectors: np.ndarray | None

    def ranges(self) -> dict[Group, Range]:
        """Where each group lies, in order."""
        keyed = self.rows.select(list(GROUP)).append_column("unseen", pc.equal(self.rows["role"], "unseen"))
        counted = keyed.group_by([*GROUP, "unseen"], use_threads=False).aggregate([([], "count_all")])
        sizes: dict[Group, dict[bool, int]] = {}
        for row in counted.to_pylist():
            sizes.setdefault((row["machine_type"], row["section"]), {})[row["unseen"]] = row["count_all"]
        found, start = {}, 0
        for group in sorted(sizes):
            bank = start + sizes[group].get(False, 0)
            stop = bank + sizes[group].get(True, 0)
            found[group] = Range(start, bank, stop)
            start = stop
        return found


def said(output: Output, provenance: Provenance, withheld: Collection[str] = ()) -> Source:
    """What ``embed`` or ``direct`` output says of healthy clips; contents that are ``withheld`` are not in the bank."""
    has_bank = output.marker.stage == "embed"
    files = output.files(Folder.EMBEDDINGS if has_bank else Folder.DIRECT)
    names = [name for name in tables.HEALTHY.names if name not in ("twins", "role", "score")]
    parts = []
    for file in files:
        keys = output.part(file.path, [*names, "split", *([] if has_bank else ["score"])])
        roles = provenance.roles(keys)
        if withheld:
            roles = ["unseen" if content in withheld else role for content, role in _zipped(keys, roles)]
        keys = keys.append_column("role", pa.array(roles, pa.string()))
        keys = keys.append_column("twins", pa.array([[]] * keys.num_rows, pa.list_(pa.string())))
        if has_bank:
            keys = keys.append_column("score", pa.nulls(keys.num_rows, pa.float64()))
        parts.append(tables.conform(keys, tables.HEALTHY))
    rows = pa.concat_tables([tables.HEALTHY.empty_table(), *parts])
    if not has_bank:
        return Source(rows, None)
    return Source(rows, lambda: (tables.vectors(output.part(file.path, ["embedding"])) for file in files))


def kept(detector: Output, folder: str) -> Source:
    """What a detector's member, in that folder, holds."""
    rows = detector.table(store.join(folder, Folder.HEALTHY), tables.HEALTHY)
    path = store.join(folder, VECTORS)
    if not any(file.path == path for file in detector.marker.files):
        return Source(rows, None)
    size = next(file.size for file in detector.marker.files if file.path == path)

    def chunks() -> Iterator[np.ndarray]:
        from ray_asd.scoring.bank import open_vectors

        yield open_vectors(detector.fetch(path), size // (4 * rows.num_rows))

    return Source(rows, chunks)


def contents_of(rows: pa.Table, names: Collection[str]) -> list[str]:
    """The contents that ``names`` mean among HEALTHY ``rows``: each a clip_id of one recording, or a content_hash.

    Raises:
        UserError: one means none of them, or several.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows.select(["clip_id", "content_hash", "twins"]).to_pylist():
        for name in (row["clip_id"], row["content_hash"], *row["twins"]):
            known[name].add(row["content_hash"])
    count = len(set(rows["content_hash"].to_pylist()))
    for name in names:
        if name not in known:
            raise UserError(f"the detector holds no clip {name!r}; allowed: clip_ids of its {count} healthy clips")
        if len(known[name]) > 1:
            several = ", ".join(sorted(known[name]))
            raise UserError(f"{name!r} is what {len(known[name])} recordings are called; allowed: one of {several}")
    return sorted({content for name in names for content in known[name]})


def laid_out(sources: Sequence[Source], withdrawn: Collection[str], local: Path) -> Healthy:
    """All clips of ``sources`` but the contents ``withdrawn`` from the first, their vectors in the file ``local``.

    Of each content in a machine type and section one clip is taken: which training saw, else which is in the bank,
    the first by clip_id; the others are its twins.

    Raises:
        UserError: nothing is left.
    """
    rows = pa.concat_tables([source.rows for source in sources])
    places, twins = _order(rows, withdrawn, sources[0].rows.num_rows)
    if not len(places):
        raise UserError("no healthy clips to compare with are left; allowed: CLIPS with split train or calibration")
    chunks = [source.chunks for source in sources]
    kept = rows.take(pa.array(places))
    kept = kept.set_column(
        kept.column_names.index("twins"), tables.HEALTHY.field("twins"), pa.array(twins, pa.list_(pa.string()))
    )
    return Healthy(kept.cast(tables.HEALTHY), None if None in chunks else _vectors(chunks, places, local))  # type: ignore[arg-type]


def _order(rows: pa.Table, withdrawn: Collection[str], before: int) -> tuple[np.ndarray, list[list[str]]]:
    """Places of the rows that are kept, in order, and the twins of each; of the ``before`` first rows, not those
    whose content is ``withdrawn``."""
    same: dict[tuple[str, ...], list[tuple[int, str, int]]] = defaultdict(list)
    names: dict[tuple[str, ...], set[str]] = defaultdict(set)
    gone = frozenset(withdrawn)
    for place, row in enumerate(rows.select([*GROUP, "content_hash", "clip_id", "twins", "role"]).to_pylist()):
        if place < before and row["content_hash"] in gone:
            continue
        key = (row["machine_type"], row["section"], row["content_hash"])
        same[key].append((_BY_PRECEDENCE.index(row["role"]), row["clip_id"], place))
        names[key] |= {row["clip_id"], *row["twins"]}
    unseen = _BY_PRECEDENCE.index("unseen")
    firsts = {key: min(found) for key, found in same.items()}
    order = sorted(firsts, key=lambda key: (*key[:2], firsts[key][0] == unseen, key[2]))
    places = np.array([firsts[key][2] for key in order], np.int64)
    return places, [sorted(names[key] - {firsts[key][1]}) for key in order]


def _vectors(chunks: Sequence[Chunks], places: np.ndarray, local: Path) -> np.ndarray:
    from ray_asd.scoring.bank import create_vectors

    vectors, first = None, 0
    for part in (part for read in chunks for part in read()):
        if vectors is None:
            vectors = create_vectors(local, len(places), part.shape[1])
        here = np.flatnonzero((places >= first) & (places < first + len(part)))
        vectors[here] = part[places[here] - first]
        first += len(part)
    assert vectors is not None
    vectors.flush()
    return vectors


def _zipped(keys: pa.Table, roles: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(keys["content_hash"].to_pylist(), roles, strict=True)
