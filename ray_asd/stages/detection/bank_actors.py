"""The banks on a cluster: the detector's groups dealt out to actors, each of which answers for its own."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ray_asd.build import Output
from ray_asd.config import Resources, Worker
from ray_asd.engine.actors import Answer, Holders
from ray_asd.engine.nodes import GIB
from ray_asd.errors import UserError
from ray_asd.stages.detection.bank import Banks, Compared, merged
from ray_asd.stages.detection.detector import DetectorCard

BESIDE_THE_MODEL = 2**30  # bytes of banks up to which each worker holds all of them, and no actor is needed
_BYTES = 8  # of a value held: float64 points, or float32 vectors and their float32 units


class Pool(Holders):
    """The actors that hold a detector's banks.

    Raises:
        UserError: a group is too large for the memory that one of them is given.
    """

    def __init__(self, detector: Output, card: DetectorCard, resources: Resources) -> None:
        parts = {
            f"{detector.marker.digest[:12]}:{number}": partial(_banks, detector, card, groups, resources.index)
            for number, groups in enumerate(dealt(card, resources))
        }
        super().__init__("index", parts, resources.index, resources.index_replicas)

    def compare(self, vectors: np.ndarray, member: int, groups: np.ndarray, hashes: Sequence[str]) -> Compared:
        """See ``Comparer``."""
        parts = [part for answers in self.ask(vectors, member, groups, hashes) for part in answers]
        return merged(parts, len(vectors))


def pool(detector: Output, card: DetectorCard, resources: Resources) -> Pool | None:
    """The actors that scoring with ``detector`` needs; None where its banks are few and nobody asks for actors.

    Raises:
        UserError: see ``Pool``.
    """
    sizes = _sizes(card)
    asked_for = resources.index_workers or resources.index.gpus or resources.index.memory_gb
    if not any(sizes) or (sum(sizes) <= BESIDE_THE_MODEL and not asked_for):
        return None
    return Pool(detector, card, resources)


def _sizes(card: DetectorCard) -> list[int]:
    """Bytes that the banks of each group take in memory, whitening included."""
    roots = [member.dim if member.scoring.backend.whiten is not None else 0 for member in card.members]
    return [
        sum(
            member.dim * (own[1] - own[0] + root) * _BYTES
            for member, root, own in zip(card.members, roots, group.ranges, strict=True)
        )
        for group in card.groups
    ]


def dealt(card: DetectorCard, resources: Resources) -> list[list[int]]:
    """Groups of each actor: the largest first, each to whom has least, so that loads are alike."""
    sizes = _sizes(card)
    memory = resources.index.memory_gb
    most = None if memory is None else int(memory * GIB)
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    if most is not None and sizes[largest] > most:
        too_large = card.groups[largest]
        raise UserError(
            f"resources.index.memory_gb={memory}: the bank of {too_large.machine_type} {too_large.section} takes "
            f"{sizes[largest] / GIB:.2f} GiB; allowed: that or more"
        )
    needed = 1 if most is None else -(-sum(sizes) // most)
    while True:
        count = min(len(sizes), max(resources.index_workers or 1, needed))
        hands: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for group in sorted(range(len(sizes)), key=lambda group: -sizes[group]):
            hand = loads.index(min(loads))
            hands[hand].append(group)
            loads[hand] += sizes[group]
        if most is None or max(loads) <= most:
            return [sorted(hand) for hand in hands]
        needed = count + 1


def _banks(detector: Output, card: DetectorCard, groups: Sequence[int], worker: Worker, threads: int) -> Answer:
    from ray_asd.scoring import knn

    knn.use_threads(threads)
    return Banks(detector, card, groups, device=0 if worker.gpus else None).compare
