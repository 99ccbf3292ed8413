import numpy as np
import pytest

from ray_asd.errors import StageError, UserError
from ray_asd.scoring.knn import Bank


def brute_force(bank, bank_ids, queries, k, exclude=None):
    """Float64 reference: every pair on its own, then a plain sort by (distance, clip_id)."""
    bank = [row / np.sqrt(np.sum(row * row)) for row in np.float64(bank)]
    distances, clip_ids = [], []
    for number, query in enumerate(np.float64(queries)):
        query = query / np.sqrt(np.sum(query * query))
        own = None if exclude is None else exclude[number]
        pairs = [(1 - np.sum(query * row), name) for row, name in zip(bank, bank_ids, strict=True) if name != own]
        best = sorted(pairs)[:k]
        distances.append([distance for distance, _ in best])
        clip_ids.append([name for _, name in best])
    return np.array(distances), clip_ids


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    assert found.clip_ids == expected[1]


def names(count, seed=0):
    return [f"fleet/fan/{number:05d}.wav" for number in np.random.default_rng(seed).permutation(count)]


def random_bank(rng):
    return rng.standard_normal((300, 96)), rng.standard_normal((40, 96))


def duplicated_bank(rng):
    """Ten vectors, thirty exact copies of each: far more ties than spare candidates."""
    vectors = rng.standard_normal((10, 96))
    return np.repeat(vectors, 30, axis=0), np.concatenate([vectors, rng.standard_normal((30, 96))])


def scaled_bank(rng):
    """Copies that differ in length only: equal directions, float64 distances equal up to their last bits."""
    bank, queries = duplicated_bank(rng)
    return bank * rng.uniform(0.1, 10, (300, 1)), queries


def nearly_tied_bank(rng):
    """Distances that differ by about 1e-9, which float32 similarities cannot tell apart."""
    base = rng.standard_normal(96)
    return base + 3e-5 * rng.standard_normal((300, 96)), base + 0.3 * rng.standard_normal((40, 96))


def integer_bank(rng):
    """Few directions, so exact ties between unlike vectors, at distances 0 to 2."""
    vectors = rng.integers(-1, 2, (340, 4))
    vectors[~vectors.any(axis=1)] = 1
    return vectors[:300], vectors[300:]


BANKS = [random_bank, duplicated_bank, scaled_bank, nearly_tied_bank, integer_bank]


@pytest.mark.parametrize("make", BANKS)
@pytest.mark.parametrize("k", [1, 2, 7])
def test_equals_brute_force_whatever_the_batch(make, k):
    bank, queries = (np.float32(array) for array in make(np.random.default_rng(k)))
    ids = names(len(bank))
    expected = brute_force(bank, ids, queries, k)
    searcher = Bank(bank, ids)
    for batch in (1, 7, len(queries)):
        for start in range(0, len(queries), batch):
            part = slice(start, start + batch)
            assert_equal(searcher.search(queries[part], k), (expected[0][part], expected[1][part]))


def test_near_ties_are_what_they_claim():
    bank, queries = (np.float32(array) for array in nearly_tied_bank(np.random.default_rng(1)))
    distances, _ = brute_force(bank, names(300), queries, 300)
    gaps = np.diff(distances, axis=1)
    assert 0 < np.median(gaps) < 1e-6
    assert gaps.min() < 1e-9


@pytest.mark.parametrize("make", BANKS)
def test_leave_one_out_equals_brute_force(make):
    bank, _ = make(np.random.default_rng(3))
    bank, ids = np.float32(bank), names(len(bank))
    chosen = slice(0, 60)
    found = Bank(bank, ids).search(bank[chosen], 2, exclude=ids[chosen])
    assert_equal(found, brute_force(bank, ids, bank[chosen], 2, exclude=ids[chosen]))
    assert all(own not in neighbours for own, neighbours in zip(ids[chosen], found.clip_ids, strict=True))


@pytest.mark.parametrize("make", BANKS)
def test_order_and_shards_of_bank_change_nothing(make):
    rng = np.random.default_rng(4)
    bank, queries = (np.float32(array) for array in make(rng))
    ids = np.array(names(len(bank)))
    order = rng.permutation(len(bank))
    one = Bank(bank, list(ids)).search(queries, 3)
    assert_equal(Bank(bank[order], list(ids[order])).search(queries, 3), (one.distances, one.clip_ids))
    halves = [Bank(bank[half], list(ids[half])).search(queries, 3) for half in (order[:150], order[150:])]
    for number, (distances, clip_ids) in enumerate(zip(one.distances, one.clip_ids, strict=True)):
        merged = sorted(pair for h in halves for pair in zip(h.distances[number], h.clip_ids[number], strict=True))
        assert merged[:3] == list(zip(distances, clip_ids, strict=True))


def test_more_values_than_fit_one_block():
    rng = np.random.default_rng(5)
    bank = np.repeat(rng.standard_normal((1, 1024), dtype=np.float32), 1500, axis=0)  # all candidates tie
    bank[7:9] = rng.standard_normal((2, 1024))
    queries = np.concatenate([bank[6:9], rng.standard_normal((120, 1024), dtype=np.float32)])
    ids = names(len(bank))
    found = Bank(bank, ids).search(queries, 2)
    some = [0, 1, 2, 3, 101, 102, 103, 122]  # a block holds 102 queries
    expected = brute_force(bank, ids, queries[some], 2)
    np.testing.assert_array_equal(found.distances[some], expected[0])
    assert [found.clip_ids[number] for number in some] == expected[1]


def test_small_banks_by_hand():
    bank = Bank(np.float32([[2, 0], [0, 3], [-5, 0]]), ["b", "a", "c"])
    assert (len(bank), bank.dim, bank.clip_ids) == (3, 2, ["a", "b", "c"])
    found = bank.search(np.float32([[1, 0], [0, -1]]), 3)
    assert found.distances.tolist() == [[0, 1, 2], [1, 1, 2]]
    assert found.clip_ids == [["b", "a", "c"], ["b", "c", "a"]]
    assert bank.search(np.float32([[1, 0]]), 1, exclude=["b"]).clip_ids == [["a"]]
    assert bank.search(np.float32([[1, 0]]), 1, exclude=["not in the bank"]).clip_ids == [["b"]]
    assert bank.search(np.empty((0, 2), dtype=np.float32), 1).distances.shape == (0, 1)


def test_extreme_lengths_keep_their_direction():
    bank = Bank(np.float32([[3e38, 3e38], [1e-45, 0], [1e-30, -1e-30]]), ["long", "short", "down"])
    found = bank.search(np.float32([[1e-44, 0]]), 3)
    assert found.clip_ids == [["short", "down", "long"]]
    np.testing.assert_allclose(found.distances, [[0, 1 - 0.5**0.5, 1 - 0.5**0.5]], atol=1e-15)


def test_asking_for_an_absent_gpu_changes_nothing():
    bank, queries = (np.float32(array) for array in random_bank(np.random.default_rng(6)))
    ids = names(len(bank))
    one = Bank(bank, ids).search(queries, 2)
    assert_equal(Bank(bank, ids, device=0).search(queries, 2), (one.distances, one.clip_ids))


@pytest.mark.parametrize(
    ("value", "what"), [(0, "zero"), (np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite")]
)
def test_vectors_without_direction_are_named(value, what):
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[1] = value
    with pytest.raises(StageError, match=rf"'b\.wav' is {what}"):
        Bank(vectors, ["a.wav", "b.wav", "c.wav"])
    bank = Bank(np.eye(4, dtype=np.float32), list("abcd"))
    with pytest.raises(StageError, match=rf"'y\.wav' is {what}"):
        bank.search(vectors, 1, exclude=["x.wav", "y.wav", "z.wav"])
    with pytest.raises(StageError, match=rf"'query 1' is {what}"):
        bank.search(vectors, 1)


def test_wrong_requests_name_the_sizes():
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(UserError, match=r"'b' is in the bank more than once"):
        Bank(vectors, ["b", "a", "b", "c"])
    with pytest.raises(StageError, match=r"3 clip_ids for embeddings of shape \(4, 4\)"):
        Bank(vectors, list("abc"))
    bank = Bank(vectors, list("abcd"))
    assert len(bank.search(vectors, 4).clip_ids[0]) == 4
    for k, exclude, size in ((5, None, 4), (4, ["x", "a", "y", "z"], 3), (0, None, 4)):
        with pytest.raises(UserError, match=rf"k={k} neighbours asked of a bank of {size} clips"):
            bank.search(vectors, k, exclude)
    with pytest.raises(UserError, match="queries have 3 values each, the bank's embeddings 4"):
        bank.search(vectors[:, :3], 1)
    with pytest.raises(StageError, match="2 clip_ids"):
        bank.search(vectors, 1, exclude=["a", "b"])
