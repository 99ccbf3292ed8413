"""The banks of a detector: healthy embeddings of each machine type and section behind the back-end, fitted and loaded.

They are saved below the member's folder: ``vectors.f32``, the back-end's tensors, and approximate indexes of the
groups beyond a size, where the settings ask for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.numpy
from safetensors import safe_open

from ray_asd import store
from ray_asd.build import Attempt, File, Output
from ray_asd.config import Scoring
from ray_asd.errors import StageError
from ray_asd.scoring import backend, knn
from ray_asd.scoring.backend import Fitted
from ray_asd.scoring.bank import open_vectors
from ray_asd.scoring.whitening import MIN_CLIPS, Scatter
from ray_asd.stages.detection.detector import DetectorCard, MemberCard, member_folder
from ray_asd.stages.detection.healthy import VECTORS, Group, Healthy, Range
from ray_asd.tables import Folder

TENSORS = "backend.safetensors"
_TOLERANCE = 1e-9  # of a score in the self-test, relative; and what another order of summing may change
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # per value of an embedding


@dataclass(frozen=True)
class Compared:
    """Scores [Q]; of each clip's nearest the clip_ids, contents and distances (Q lists each); and which clips [Q] are
    in the bank themselves, where they were left out."""

    scores: np.ndarray
    neighbours: list[list[str]]
    hashes: list[list[str]]
    distances: list[list[float]]
    left_out: np.ndarray


@dataclass(frozen=True)
class Part:
    """Answers for the queries at these places."""

    places: np.ndarray
    compared: Compared


@dataclass
class Bank:
    """One group's bank of one member, ready to be compared with."""

    fitted: Fitted
    clip_ids: list[str]
    hashes: list[str]  # contents; no two are alike

    def __post_init__(self) -> None:
        self._row_of = {content: row for row, content in enumerate(self.hashes)}

    def compare(self, vectors: np.ndarray, hashes: Sequence[str]) -> Compared:
        """Vectors (float32 [Q, E]) of clips with these contents, each left out where it is in the bank itself."""
        own = np.array([self._row_of.get(content, -1) for content in hashes], np.int64)
        found = self.fitted.search(vectors, own)
        there = [row[row >= 0] for row in found.rows]
        return Compared(
            found.scores,
            [[self.clip_ids[place] for place in row] for row in there],
            [[self.hashes[place] for place in row] for row in there],
            [values[: len(row)].tolist() for values, row in zip(found.values, there, strict=True)],
            own >= 0,
        )


def fitted(
    healthy: Healthy, ranges: Mapping[Group, Range], scoring: Scoring
) -> tuple[dict[Group, Bank], Scatter | None]:
    """The bank of each group that has enough clips, in order, and the scatter of the fleet that small groups take."""
    settings = scoring.backend
    assert healthy.vectors is not None
    fleet = _fleet(healthy.vectors, ranges, scoring)
    clip_ids, hashes, domains = (healthy.rows[name] for name in ("clip_id", "content_hash", "domain"))
    banks: dict[Group, Bank] = {}
    for group, own in ranges.items():
        if own.size < backend.needed(settings):
            continue
        vectors, here = healthy.vectors[own.start : own.bank], slice(own.start, own.bank)
        made = backend.fit(vectors, domains[here].to_pylist(), settings, fleet)
        banks[group] = Bank(made, clip_ids[here].to_pylist(), hashes[here].to_pylist())
    return banks, fleet


def _fleet(vectors: np.ndarray, ranges: Mapping[Group, Range], scoring: Scoring) -> Scatter | None:
    """The scatter within all groups, where a small one needs it."""
    if scoring.backend.whiten is None or all(own.size >= MIN_CLIPS for own in ranges.values()):
        return None
    found = [Scatter.of(vectors[own.start : own.bank]) for own in ranges.values() if own.size]
    return sum(found[1:], found[0]) if found else None


def saved(
    attempt: Attempt, folder: str, banks: Mapping[Group, Bank], scoring: Scoring, local: Path
) -> tuple[list[File], dict[Group, float]]:
    """Write back-ends and approximate indexes below ``folder``; and the recall of each such index."""
    tensors = {
        f"{number}.{name}": np.ascontiguousarray(value)
        for number, bank in enumerate(banks.values())
        for name, value in bank.fitted.tensors().items()
    }
    safetensors.numpy.save_file(tensors, local / TENSORS)
    files = [attempt.put_file(store.join(folder, TENSORS), local / TENSORS)]
    recalls: dict[Group, float] = {}
    for number, (group, bank) in enumerate(banks.items()):
        plain = bank.fitted.bank
        if scoring.index.kind == "exact" or plain is None or len(plain) <= scoring.index.beyond:
            continue
        proposing = knn.build_approximate(plain.rows_of(0), scoring.index)
        knn.save(proposing, local / "index")
        files.append(attempt.put_file(store.join(folder, "approximate", f"{number:05d}.faiss"), local / "index"))
        bank.fitted.attach(proposing, scoring.index.refine)
        recalls[group] = plain.recall(0, scoring.backend.neighbours)
    return files, recalls


class Comparer(Protocol):
    """Compares embeddings with a detector's banks, wherever these are."""

    def compare(self, vectors: np.ndarray, member: int, groups: np.ndarray, hashes: Sequence[str]) -> Compared:
        """Vectors (float32 [Q, E]) of a member, each in its group (numbers [Q]), of clips with these contents."""
        ...


class Banks:
    """The banks that a detector's groups have in one process: all of them, or those of some ``groups`` by number.

    Raises:
        StageError: a clip of the self-test does not get its score.
    """

    def __init__(
        self, detector: Output, card: DetectorCard, groups: Sequence[int] | None = None, device: int | None = None
    ) -> None:
        self.groups = list(range(len(card.groups))) if groups is None else list(groups)
        self._banks: dict[tuple[int, int], Bank] = {}
        for number, member in enumerate(card.members):
            if member.has_bank:
                loaded = _loaded(detector, card, number, member, set(self.groups), device)
                self._banks |= {(number, group): bank for group, bank in loaded}
        self._self_test(detector, card)

    def compare(self, vectors: np.ndarray, member: int, groups: np.ndarray, hashes: Sequence[str]) -> list[Part]:
        """What of vectors [Q, E], each in its group (numbers [Q]), is to be compared here: one part per group."""
        found = []
        for group in np.unique(groups):
            bank = self._banks.get((member, int(group)))
            if bank is not None:
                places = np.flatnonzero(groups == group)
                own = [hashes[int(place)] for place in places]
                found.append(Part(places, bank.compare(vectors[places], own)))
        return found

    def _self_test(self, detector: Output, card: DetectorCard) -> None:
        for row in detector.table(Folder.SELF_TEST).to_pylist():
            bank = self._banks.get((row["member"], card.number(row["machine_type"], row["section"])))
            if bank is None:
                continue
            (score,) = bank.compare(np.array([row["vector"]], np.float32), [row["content_hash"]]).scores
            spread = min([1.0, *(domain.spread for domain in bank.fitted.domains)])
            rounding = _ROUNDING * len(row["vector"]) / spread
            if not abs(score - row["score"]) <= _TOLERANCE * max(abs(score), abs(row["score"])) + rounding:
                raise StageError(
                    f"{detector.uri}: the self-test fails: {row['clip_id']} gets {score!r}, not {row['score']!r}; "
                    f"it was made with {detector.marker.versions}"
                )


def merged(parts: Sequence[Part], count: int) -> Compared:
    """The parts' answers in the order of the ``count`` queries, each of which is in one part."""
    nothing = np.zeros(count, bool)
    found = Compared(np.full(count, np.nan), [[]] * count, [[]] * count, [[]] * count, nothing)
    for part in parts:
        own = part.compared
        found.scores[part.places], found.left_out[part.places] = own.scores, own.left_out
        for row, place in enumerate(part.places):
            found.neighbours[place], found.hashes[place] = own.neighbours[row], own.hashes[row]
            found.distances[place] = own.distances[row]
    return found


class Here:
    """All banks in this process."""

    def __init__(self, detector: Output, card: DetectorCard) -> None:
        self._banks = Banks(detector, card)

    def compare(self, vectors: np.ndarray, member: int, groups: np.ndarray, hashes: Sequence[str]) -> Compared:
        """See ``Comparer``."""
        return merged(self._banks.compare(vectors, member, groups, hashes), len(vectors))


def _loaded(
    detector: Output, card: DetectorCard, number: int, member: MemberCard, wanted: set[int], device: int | None
) -> Iterator[tuple[int, Bank]]:
    """The banks of the wanted groups of a member, in order of the groups."""
    folder = member_folder(number)
    rows = detector.table(store.join(folder, Folder.HEALTHY))
    vectors = open_vectors(detector.fetch(store.join(folder, VECTORS)), member.dim)
    settings = member.scoring.backend
    with safe_open(detector.fetch(store.join(folder, TENSORS)), "numpy") as tensors:
        named: dict[str, list[str]] = {}
        for name in tensors.keys():  # noqa: SIM118
            named.setdefault(name.partition(".")[0], []).append(name)
        there = [(place, group) for place, group in enumerate(card.groups) if group.has_bank[number]]
        for saved_as, (place, group) in enumerate(there):
            if place not in wanted:
                continue
            own = Range(*group.ranges[number])
            names = named.get(str(saved_as), [])
            kept = {name.partition(".")[2]: tensors.get_tensor(name) for name in names}
            made = backend.load(kept, vectors[own.start : own.bank], settings, device)
            path = store.join(folder, "approximate", f"{saved_as:05d}.faiss")
            if any(file.path == path for file in detector.marker.files):
                made.attach(knn.load(detector.fetch(path)), member.scoring.index.refine)
            names, hashes = (rows[name][own.start : own.bank].to_pylist() for name in ("clip_id", "content_hash"))
            yield place, Bank(made, names, hashes)
