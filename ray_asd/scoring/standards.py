"""Scores of machines that differ in scale made comparable: each in the unit of other scores of its kind.

What is standardised by itself looks less odd than a newcomer does. So everything is in the unit of what it was not part
of: a night in that of the machine's other nights, a calibration clip in that of the clips that lie apart from it.

Shapes: R rows, G kinds, C clips, N calibration clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_asd.scoring.scores import MIN_CLIPS

_PARTS = 10  # that the calibration clips of a kind are cut into
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Sums:
    """How many clips there are of each kind [G] or beside each row [R], the sum of their scores and of the squares."""

    clips: Floats
    total: Floats
    squares: Floats

    def of(self, groups: Ints, count: int) -> "_Sums":
        """Of each group [count], where these are of rows."""
        summed = [np.bincount(groups, own, count).astype(float) for own in (self.clips, self.total, self.squares)]
        return _Sums(*summed)

    def at(self, places: Ints) -> "_Sums":
        return _Sums(self.clips[places], self.total[places], self.squares[places])

    def __sub__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.clips - other.clips, self.total - other.total, self.squares - other.squares)

    @property
    def centre(self) -> Floats:
        return np.asarray(self.total / np.maximum(self.clips, 1))

    @property
    def spread(self) -> Floats:
        """0 where nothing tells."""
        left = self.squares - self.clips * self.centre**2
        found = np.sqrt(np.maximum(left, 0) / np.maximum(self.clips - 1, 1))
        return np.asarray(np.where(left > 1e-12 * self.squares, found, 0))


def coded(tables: Sequence[pa.Table], names: Sequence[str]) -> list[Ints]:
    """Of each table's rows one number for each combination of these columns, the same in all tables."""
    rows = pa.concat_tables([table.select(list(names)) for table in tables], promote_options="permissive")
    codes = np.zeros(len(rows), np.int64)
    for name in names:
        column = rows[name].combine_chunks().dictionary_encode()
        own = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = np.unique(codes * (len(column.dictionary) + 1) + own, return_inverse=True)[1]
    return np.split(codes, np.cumsum([len(table) for table in tables])[:-1])


def nights(clips: Floats, mean: Floats, deviations: Floats, groups: Ints) -> tuple[Floats, Floats]:
    """Means of nights [R] in the units of their groups' other nights, and these units [R]; 0 where nothing tells.

    Args:
        deviations: the sum of squared deviations from the mean.
        groups: which nights [R] are of one machine and domain.
    """
    count = int(groups.max(initial=-1)) + 1
    mean = _centred(mean, groups, count)  # squares are summed around something near
    own = _Sums(clips, clips * mean, deviations + clips * mean**2)
    others = own.of(groups, count).at(groups) - own
    return _in_unit(mean, others.centre, others.spread), others.spread


def clips(scores: pa.Table, calibration: pa.Table) -> tuple[Floats, Floats]:
    """Scores [C] in the unit of their kind's CALIBRATION, and calibration scores; NaN where a kind has few of them.

    A kind is a machine type, section and domain, or without domain where that one has few calibration clips. Its clips
    are cut into parts by name, and each part is in the unit of the others: clips recorded together bear names that lie
    together, and the unit that a new night is in holds none of its clips either.
    """
    new_values, old_values = (table["score"].to_numpy().astype(float) for table in (scores, calibration))
    new_units, old_units = np.full(len(scores), np.nan), np.full(len(calibration), np.nan)
    by_name = np.argsort(calibration["clip_id"].to_numpy(zero_copy_only=False).astype(str), kind="stable")
    for names in (("machine_type", "section"), ("machine_type", "section", "domain")):
        new, old = coded([scores, calibration], names)
        kinds = int(max(new.max(initial=-1), old.max(initial=-1))) + 1
        values = _centred(old_values, old, kinds)
        own = _Sums(np.ones(len(old)), values, values**2)
        of_kind = own.of(old, kinds)
        known = (of_kind.clips >= MIN_CLIPS) & (of_kind.spread > 0)
        parts = _parts(old, of_kind.clips, by_name)
        others = of_kind.at(old) - own.of(parts, kinds * _PARTS).at(parts)
        old_units[known[old]] = _in_unit(values, others.centre, others.spread)[known[old]]
        place = np.bincount(old, old_values, kinds) / np.maximum(of_kind.clips, 1)
        new_units[known[new]] = _in_unit(new_values, place[new], of_kind.spread[new])[known[new]]
    return new_units, old_units


def _centred(values: Floats, groups: Ints, count: int) -> Floats:
    """Less the mean of each one's group."""
    means = np.bincount(groups, values, count) / np.maximum(np.bincount(groups, minlength=count), 1)
    return np.asarray(values - means[groups])


def _in_unit(values: Floats, centre: Floats, spread: Floats) -> Floats:
    return np.divide(values - centre, spread, out=np.zeros_like(values), where=spread > 0)


def _parts(groups: Ints, sizes: Floats, in_order: Ints) -> Ints:
    """Which part [R] of ``_PARTS`` for each group a row is in, the rows of a group being taken in that order."""
    order = in_order[np.argsort(groups[in_order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    rank = np.empty(len(groups))
    rank[order] = np.arange(len(groups)) - first[groups[order]]
    return np.asarray(groups * _PARTS + (rank * _PARTS // np.maximum(sizes[groups], 1)).astype(np.int64))
