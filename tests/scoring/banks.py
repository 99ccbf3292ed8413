"""Banks that are hard to search exactly, and the float64 brute force that says what is right."""

import numpy as np

DIM = 96


def brute_force(bank, groups, queries, group_of, k, own=None):
    """Every pair on its own, then a plain sort by (distance, row); inf and -1 where a group has fewer than k."""
    units = [row / np.sqrt(np.sum(row * row)) for row in np.float64(bank)]
    own = np.full(len(queries), -1) if own is None else own
    distances, rows = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
    for number, query in enumerate(np.float64(queries)):
        query = query / np.sqrt(np.sum(query * query))
        pairs = [(1 - np.sum(query * units[row]), row) for row in range(*groups[group_of[number]])]
        best = sorted(pair for pair in pairs if pair[1] != own[number])[:k]
        for rank, (distance, row) in enumerate(best):
            distances[number, rank], rows[number, rank] = distance, row
    return distances, rows


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.rows, expected[1])


def random_bank(rng):
    return rng.standard_normal((300, DIM)), rng.standard_normal((40, DIM))


def duplicated_bank(rng):
    """Ten vectors, thirty exact copies of each: far more ties than spare candidates."""
    vectors = rng.standard_normal((10, DIM))
    return np.tile(vectors, (30, 1)), np.concatenate([vectors, rng.standard_normal((30, DIM))])


def scaled_bank(rng):
    """Copies that differ in length only: equal directions, float64 distances equal up to their last bits."""
    bank, queries = duplicated_bank(rng)
    return bank * rng.uniform(0.1, 10, (300, 1)), queries


def nearly_tied_bank(rng):
    """Distances that differ by about 1e-9, which float32 similarities cannot tell apart."""
    base = rng.standard_normal(DIM)
    return base + 3e-5 * rng.standard_normal((300, DIM)), base + 0.3 * rng.standard_normal((40, DIM))


def integer_bank(rng):
    """Few directions, so exact ties between unlike vectors, at distances 0 to 2."""
    vectors = rng.integers(-1, 2, (340, 4))
    vectors[~vectors.any(axis=1)] = 1
    return vectors[:300], vectors[300:]


def misleading_bank(rng):
    """Rows of equal values but one: float32 rounds all the equal ones alike, up or down, by more than rows differ."""
    bank = np.ones((300, DIM))
    bank[np.arange(300), np.arange(300) % DIM] += 1e-6 * rng.permutation(np.arange(1, 301))
    return bank, np.ones((40, DIM)) + 1e-3 * rng.integers(0, 2, (40, 1))


BANKS = [random_bank, duplicated_bank, scaled_bank, nearly_tied_bank, integer_bank, misleading_bank]


def make_bank(make, seed):
    bank, queries = (np.float32(array) for array in make(np.random.default_rng(seed)))
    return bank, queries
