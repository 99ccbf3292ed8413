"""The paper's scores, to the last bit: its formula in numpy alone, and what the code of 72f2c80 gave.

72f2c80 knew no other back-end: ``scores.clip_scores(Bank(BANK, [(0, 12)]).search(QUERIES, zeros, 2).distances)``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from banks import BANKS, make_bank

from ray_asd.config import Backend
from ray_asd.scoring import backend

VALUES = range(24)
BANK = np.array([[(7 * row + 3 * value + row * value) % 11 - 5 for value in VALUES] for row in range(12)], np.float32)
QUERIES = np.array([[(5 * row + 2 * value * value) % 13 - 6 for value in VALUES] for row in range(6)], np.float32)
QUERIES[4:] = BANK[2], 3 * BANK[2]  # a clip of the bank, and its direction at another length
OF_72F2C80 = [
    *("0x1.a3518080a3830p-1", "0x1.77b52e2b94054p-1", "0x1.74027289ebb38p-1"),
    *("0x1.bd8ecfb52c269p-1", "0x1.602a0dc417235p-2", "0x1.602a0dc417235p-2"),
]


def formula(bank: np.ndarray, queries: np.ndarray, k: int, own: np.ndarray) -> np.ndarray:
    """Scores [Q]: the mean of the k smallest 1 - cos in float64, each without row ``own`` [Q] (-1: with all)."""
    bank, queries = (v / np.sqrt((v * v).sum(axis=1, keepdims=True)) for v in (np.float64(bank), np.float64(queries)))
    distances = np.array([1 - (bank * query).sum(axis=1) for query in queries])
    left_out = np.flatnonzero(own >= 0)
    distances[left_out, own[left_out]] = np.inf
    return np.sort(distances, axis=1)[:, :k].mean(axis=1)


def bits(scores: np.ndarray) -> list[str]:
    return [float(score).hex() for score in scores]


@pytest.mark.parametrize("make", BANKS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_paper_is_its_formula(make: Callable[..., Any], k: int) -> None:
    bank, queries = make_bank(make, k)
    settings = Backend.model_validate("paper").model_copy(update={"neighbours": k})
    fitted = backend.fit(bank, [None] * len(bank), settings)
    loaded = backend.load(fitted.tensors(), bank, settings)
    for asked, own in ((queries, np.full(len(queries), -1)), (bank[::9], np.arange(0, len(bank), 9))):
        expected = bits(formula(bank, asked, k, own))
        assert bits(fitted.search(asked, own).scores) == expected
        assert bits(loaded.search(asked, own).scores) == expected
        one_by_one = [loaded.search(asked[n : n + 1], own[n : n + 1]).scores for n in range(len(asked))]
        assert bits(np.concatenate(one_by_one)) == expected


def test_the_paper_scores_as_72f2c80_did() -> None:
    fitted = backend.fit(BANK, ["source", "target"] * 6, Backend.model_validate("paper"))
    assert bits(fitted.search(QUERIES, np.full(len(QUERIES), -1)).scores) == OF_72F2C80
