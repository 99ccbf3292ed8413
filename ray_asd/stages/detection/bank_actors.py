"""The bank on a cluster: cut into runs of rows, each held by actors, whose answers are merged exactly."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ray_asd.build import Output
from ray_asd.config import Resources, Worker
from ray_asd.engine import placement
from ray_asd.engine.actors import Answer, Holders
from ray_asd.stages.detection.search import Found, Rows, bounds, merged

_VECTOR_BYTES = 4


class Pool(Holders):
    """The actors that hold a bank."""

    def __init__(self, bank: Output, resources: Resources) -> None:
        cuts = bounds(bank, resources.index_workers or _needed(bank, resources.index))
        parts = {
            f"{bank.marker.digest[:12]}:{start}": partial(_rows, bank, start, stop, resources.index)
            for start, stop in cuts
        }
        super().__init__("index", parts, resources.index, resources.index_replicas)

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Found:
        """See ``Searcher``."""
        return merged(self.ask(vectors, groups, clip_ids, k), k)


def _rows(bank: Output, start: int, stop: int, worker: Worker, threads: int) -> Answer:
    from ray_asd.scoring import knn

    knn.use_threads(threads)
    return Rows(bank, start, stop, device=0 if worker.gpus else None).search


def _needed(bank: Output, worker: Worker) -> int:
    """Shards, so that each one's vectors fit into its worker's memory."""
    held = bank.marker.counts["clips"] * bank.marker.summary["dim"] * _VECTOR_BYTES
    return 1 if worker.memory_gb is None else max(1, -(-held // int(worker.memory_gb * placement.GIB)))
