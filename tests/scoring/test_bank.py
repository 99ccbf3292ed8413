import faiss
import numpy as np
import pytest
from banks import BANKS, assert_equal, brute_force, integer_bank, make_bank, misleading_bank, nearly_tied_bank

from ray_asd.errors import StageError, UserError
from ray_asd.scoring import cosine
from ray_asd.scoring.bank import Bank, create_vectors, open_vectors, shard_ranges
from ray_asd.scoring.cosine import NoDirection, merge

GROUPS = [(0, 137), (137, 138), (138, 140), (140, 140), (140, 300)]  # one row, two, none, and many


def some_groups(count, seed=0):
    return np.random.default_rng(seed).integers(0, len(GROUPS), count)


@pytest.mark.parametrize("make", BANKS)
@pytest.mark.parametrize("k", [1, 2, 7])
def test_equals_brute_force_whatever_the_batch(make, k):
    bank, queries = make_bank(make, k)
    searcher = Bank(bank, [(0, 300)])
    group_of = np.zeros(40, dtype=np.int64)
    distances, rows = brute_force(bank, [(0, 300)], queries, group_of, k)
    for batch in (1, 7, 40):
        for start in range(0, 40, batch):
            part = slice(start, start + batch)
            assert_equal(searcher.search(queries[part], group_of[part], k), (distances[part], rows[part]))


@pytest.mark.parametrize("make", BANKS)
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_batches_groups_and_own_rows_change_nothing(make, shards):
    """Queries of the bank itself, of five groups in no order, each left out of its own search."""
    bank, _ = make_bank(make, 3)
    own = np.random.default_rng(1).permutation(300)[:60]
    own[::5] = -1
    queries, group_of = bank[own], some_groups(60)
    expected = brute_force(bank, GROUPS, queries, group_of, 3, own)
    parts = [Bank(bank[lo:hi], GROUPS, first_row=lo) for lo, hi in shard_ranges(300, shards)]
    for batch in (1, 13, 60):
        pieces = [slice(start, start + batch) for start in range(0, 60, batch)]
        found = [
            merge([part.search(queries[piece], group_of[piece], 3, own[piece]) for part in parts], 3)
            for piece in pieces
        ]
        for piece, one in zip(pieces, found, strict=True):
            assert_equal(one, (expected[0][piece], expected[1][piece]))


@pytest.mark.parametrize("make", [nearly_tied_bank, misleading_bank])
def test_float32_alone_would_be_wrong(make):
    bank, queries = make_bank(make, 1)
    _, rows = brute_force(bank, [(0, 300)], queries, np.zeros(40, int), 3)
    units, others = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (bank, queries))
    seeming = np.argsort(-(others @ units.T), axis=1, kind="stable")[:, :3]
    assert (seeming != rows).any(axis=1).mean() > 0.5


def test_near_ties_are_what_they_claim():
    bank, queries = make_bank(nearly_tied_bank, 1)
    distances, _ = brute_force(bank, [(0, 300)], queries, np.zeros(40, int), 300)
    gaps = np.diff(distances, axis=1)
    assert 0 < np.median(gaps) < 1e-6
    assert gaps.min() < 1e-9


@pytest.mark.parametrize("dim", [1, 4, 768, 3000])
def test_error_bound_holds_for_equal_values_summed_one_by_one(dim):
    """The worst order, on values whose roundings all go one way; at 3000 it is within a hundredth of the bound."""
    errors = []
    for value in np.linspace(1, 2, 200):
        vectors = np.full((2, dim), value) * np.array([[1], [1.1]])
        one, two = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        summed = np.cumsum(np.float32(one) * np.float32(two), dtype=np.float32)[-1]
        errors.append(abs(float(summed) - np.sum(one * two)))
    assert max(errors) <= cosine.error(dim, np.float32)
    assert dim < 768 or max(errors) > cosine.error(dim, np.float32) / 100


def test_more_values_than_fit_one_block():
    """All candidates tie, for more rows and more queries than are looked at at once."""
    rng = np.random.default_rng(5)
    bank = np.repeat(rng.standard_normal((1, 1024), dtype=np.float32), 9000, axis=0)
    bank[7:9] = rng.standard_normal((2, 1024))
    queries = np.concatenate([bank[6:9], rng.standard_normal((4200, 1024), dtype=np.float32)])
    queries[10:4195] = bank[7]  # so that few need the second look
    group_of = np.zeros(len(queries), dtype=np.int64)
    found = Bank(bank, [(0, 9000)]).search(queries, group_of, 2)
    some = [0, 1, 2, 3, 4096, 4200, 4202]
    distances, rows = brute_force(bank, [(0, 9000)], queries[some], group_of[some], 2)
    np.testing.assert_array_equal(found.distances[some], distances)
    np.testing.assert_array_equal(found.rows[some], rows)


def test_small_banks_by_hand():
    bank = Bank(np.float32([[0, 3], [2, 0], [-5, 0], [0, 1]]), [(0, 3), (3, 4)])
    assert (len(bank), bank.dim) == (4, 2)
    found = bank.search(np.float32([[1, 0], [0, -1], [2, 0]]), [0, 0, 1], 3)
    assert found.distances.tolist() == [[0, 1, 2], [1, 1, 2], [1, np.inf, np.inf]]
    assert found.rows.tolist() == [[1, 0, 2], [1, 2, 0], [3, -1, -1]]
    without = bank.search(np.float32([[1, 0], [1, 0], [1, 1]]), [0, 0, 1], 1, own=[1, 3, 3])
    assert without.rows.tolist() == [[0], [1], [-1]]
    assert bank.search(np.empty((0, 2), dtype=np.float32), [], 1).distances.shape == (0, 1)
    assert Bank(np.empty((0, 2), dtype=np.float32), [(0, 0)]).search(np.ones((1, 2)), [0], 1).rows.tolist() == [[-1]]


def test_more_neighbours_than_rows():
    bank, queries = make_bank(integer_bank, 2)
    found = Bank(bank, GROUPS).search(queries, np.full(40, 4), 200)
    assert_equal(found, brute_force(bank, GROUPS, queries, np.full(40, 4), 200))
    assert (found.rows[:, 160:] == -1).all()


def test_extreme_lengths_keep_their_direction():
    bank = Bank(np.float32([[1e-30, -1e-30], [3e38, 3e38], [1e-45, 0]]), [(0, 3)])
    found = bank.search(np.float32([[1e-44, 0]]), [0], 3)
    assert found.rows.tolist() == [[2, 0, 1]]
    np.testing.assert_allclose(found.distances, [[0, 1 - 0.5**0.5, 1 - 0.5**0.5]], atol=1e-15)


def test_asking_for_an_absent_gpu_changes_nothing():
    bank, queries = make_bank(nearly_tied_bank, 6)
    group_of = some_groups(40)
    one = Bank(bank, GROUPS).search(queries, group_of, 2)
    assert_equal(Bank(bank, GROUPS, device=0).search(queries, group_of, 2), (one.distances, one.rows))


@pytest.mark.gpu
@pytest.mark.parametrize("make", BANKS)
def test_candidates_from_a_gpu_end_in_the_same_neighbours(make):
    assert faiss.get_num_gpus()
    bank, queries = make_bank(make, 6)
    on_cpu, on_gpu = Bank(bank, GROUPS), Bank(bank, GROUPS, device=0)
    for batch, own in ((queries, None), (bank[:40], np.arange(40))):
        one = on_cpu.search(batch, some_groups(40), 3, own)
        assert_equal(on_gpu.search(batch, some_groups(40), 3, own), (one.distances, one.rows))


@pytest.mark.parametrize("make", BANKS)
def test_a_bank_in_a_file_answers_the_same(make, tmp_path):
    bank, queries = make_bank(make, 7)
    path = tmp_path / "bank"
    created = create_vectors(path, *bank.shape)
    created[:] = bank
    created.flush()
    mapped = open_vectors(path, bank.shape[1])
    assert isinstance(mapped.base, np.memmap)
    group_of = some_groups(40)
    one = Bank(bank, GROUPS).search(queries, group_of, 2)
    assert_equal(Bank(mapped, GROUPS).search(queries, group_of, 2), (one.distances, one.rows))
    parts = [Bank(mapped[lo:hi], GROUPS, first_row=lo) for lo, hi in shard_ranges(300, 3)]
    assert_equal(merge([part.search(queries, group_of, 2) for part in parts], 2), (one.distances, one.rows))
    with pytest.raises(StageError, match=r"bytes, not a multiple of 4004: its rows do not have 1001 values"):
        open_vectors(path, 1001)
    path.write_bytes(b"")
    with pytest.raises(StageError, match=r"bank holds 0 bytes"):
        open_vectors(path, 1001)


@pytest.mark.parametrize(("count", "shards"), [(10, 1), (10, 3), (2, 5), (0, 2)])
def test_shard_ranges_hold_each_row_once(count, shards):
    ranges = shard_ranges(count, shards)
    assert [row for lo, hi in ranges for row in range(lo, hi)] == list(range(count))
    sizes = [hi - lo for lo, hi in ranges]
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("value", "what"), [(0, "zero"), (np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite")]
)
def test_vectors_without_direction_are_named_by_row(value, what):
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[1] = value
    with pytest.raises(NoDirection, match=rf"^bank row 701 is {what}: it has no direction \(1 such\)$") as raised:
        Bank(vectors, [], first_row=700)
    assert raised.value.row == 701
    bank = Bank(np.eye(4, dtype=np.float32), [(0, 2), (2, 4)])
    with pytest.raises(NoDirection, match=rf"^query 1 is {what}"):
        bank.search(vectors, [1, 0, 0], 1)


def test_wrong_requests_name_what_is_wrong():
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(StageError, match=r"bank vectors of shape \(4,\)"):
        Bank(vectors[0], [])
    for group in ((2, 1), (-1, 2)):
        with pytest.raises(StageError, match=rf"group 1 is no range of rows: {group[0]} to {group[1]}"):
            Bank(vectors, [(0, 4), group])
    bank = Bank(vectors, [(0, 2), (2, 4)])
    with pytest.raises(StageError, match="queries have 3 values each, the bank's vectors 4"):
        bank.search(vectors[:, :3], [0] * 4, 1)
    for unknown in (-1, 2):
        with pytest.raises(StageError, match=f"unknown group {unknown}; allowed: 0 to 1"):
            bank.search(vectors, [0, unknown, 0, 1], 1)
    for group_of, own in (([0, 1], None), ([0] * 4, [1])):
        with pytest.raises(StageError, match="4 queries with groups"):
            bank.search(vectors, group_of, 1, own)
    with pytest.raises(UserError, match="k=0 neighbours asked for; allowed: 1 or more"):
        bank.search(vectors, [0] * 4, 0)
    one, other = bank.search(vectors, [0] * 4, 1), bank.search(vectors[:2], [0] * 2, 1)
    with pytest.raises(StageError, match=r"parts that answer \[2, 4\] queries cannot be merged"):
        merge([one, other], 1)
