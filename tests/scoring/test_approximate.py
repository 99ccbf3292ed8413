"""Approximate indexes only propose: distances stay exact, and what they miss is measured."""

import numpy as np
import pytest
from banks import assert_equal, brute_force

from ray_asd.config import Index
from ray_asd.errors import StageError
from ray_asd.scoring import knn
from ray_asd.scoring.bank import Bank
from ray_asd.scoring.knn import build_approximate, load, save, tune

DIM, COUNT, OTHER = 32, 4000, 500
GROUPS = [(0, OTHER), (OTHER, OTHER + COUNT)]  # the second has the index
KINDS = {
    "ivf": Index(kind="ivf", lists=64, probes=1),
    "hnsw": Index(kind="hnsw", hnsw_links=8, hnsw_construction=16, hnsw_search=8),
    "pq": Index(kind="pq", lists=32, probes=4, pq_parts=4, pq_refine=8),
}


@pytest.fixture(scope="module")
def vectors():
    """Clusters that overlap, so that neighbours lie across the borders of lists."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM))
    return np.float32(centres[rng.integers(0, 40, OTHER + COUNT)] + 0.8 * rng.standard_normal((OTHER + COUNT, DIM)))


def banked(vectors, settings, seed=0):
    bank = Bank(vectors, GROUPS)
    index = build_approximate(bank.rows_of(1), settings, seed)
    bank.attach(1, index, settings.refine)
    return bank, index


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_exact_and_recall_is_what_brute_force_finds(vectors, kind):
    bank, _ = banked(vectors, KINDS[kind])
    rows = np.sort(np.random.default_rng(5).permutation(COUNT)[:100]) + OTHER
    group_of = np.ones(100, dtype=np.int64)
    distances, true = brute_force(vectors, GROUPS, vectors[rows], group_of, 2, own=rows)
    found = bank.search(vectors[rows], group_of, 2, own=rows)
    hits = [len(set(one) & set(other)) for one, other in zip(found.rows, true, strict=True)]
    assert 0.3 < sum(hits) / 200 < 0.995, "an index that misses nothing shows nothing here"
    assert (found.rows != rows[:, None]).all()
    for number, row in enumerate(rows):
        chosen = brute_force(vectors[found.rows[number]], [(0, 2)], vectors[[row]], [0], 2)
        np.testing.assert_array_equal(found.distances[number], chosen[0][0])
    assert (found.distances >= distances).all()
    assert_equal(bank.search(vectors[rows], group_of, 2, rows, exact=True), (distances, true))
    one = np.random.default_rng(3).choice(COUNT, 100, replace=False)
    chosen = np.sort(one) + OTHER
    _, true = brute_force(vectors, GROUPS, vectors[chosen], group_of, 2, own=chosen)
    found = bank.search(vectors[chosen], group_of, 2, own=chosen)
    hits = [len(set(one) & set(other)) for one, other in zip(found.rows, true, strict=True)]
    assert bank.recall(1, 2, sample=100, seed=3) == sum(hits) / 200


@pytest.mark.parametrize("kind", KINDS)
def test_groups_without_an_index_stay_exact(vectors, kind):
    bank, _ = banked(vectors, KINDS[kind])
    rows = np.arange(0, 1000, 20)
    group_of = np.where(rows < OTHER, 0, 1)[::-1]  # in no order of rows
    found = bank.search(vectors[rows], group_of, 3)
    small = group_of == 0
    distances, true = brute_force(vectors, GROUPS, vectors[rows[small]], group_of[small], 3)
    np.testing.assert_array_equal(found.distances[small], distances)
    np.testing.assert_array_equal(found.rows[small], true)
    assert bank.recall(0, 2) == 1
    assert Bank(vectors, GROUPS).recall(1, 2, sample=50) == 1
    assert Bank(vectors, [(0, 1), (5, 5)]).recall(0, 2) == Bank(vectors, [(0, 1), (5, 5)]).recall(1, 2) == 1


@pytest.mark.parametrize(
    ("kind", "setting", "values"),
    [("ivf", "probes", (1, 4, 64)), ("hnsw", "hnsw_search", (8, 32, 512)), ("pq", "probes", (1, 4, 32))],
)
def test_recall_rises_with_how_far_is_searched(vectors, kind, setting, values):
    bank, index = banked(vectors, KINDS[kind])
    recalls = []
    for value in values:
        tune(index, KINDS[kind].model_copy(update={setting: value}))
        recalls.append(bank.recall(1, 2, sample=300))
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1]
    assert kind != "ivf" or recalls[-1] == 1, "all lists were looked through"


def test_recall_of_product_quantisers_rises_with_the_candidates_refined(vectors):
    settings = KINDS["pq"].model_copy(update={"probes": 32})
    bank, index = banked(vectors, settings)
    recalls = []
    for refine in (1, 8, 200):
        bank.attach(1, index, refine)
        recalls.append(bank.recall(1, 2, sample=300))
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[2] > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_the_same_from_a_file_and_for_a_seed(vectors, kind, tmp_path):
    threads = knn.faiss.omp_get_max_threads()
    knn.faiss.omp_set_num_threads(1)
    try:
        bank, index = banked(vectors, KINDS[kind], seed=7)
        again = build_approximate(bank.rows_of(1), KINDS[kind], seed=7)
    finally:
        knn.faiss.omp_set_num_threads(threads)
    save(index, tmp_path / "one")
    save(again, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    queries, group_of = vectors[OTHER : OTHER + 200], np.ones(200, dtype=np.int64)
    found = bank.search(queries, group_of, 2)
    bank.attach(1, load(tmp_path / "one"), KINDS[kind].refine)
    assert_equal(bank.search(queries, group_of, 2), (found.distances, found.rows))


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_looks_at_too_few_rows_is_helped_out(vectors, kind):
    """50 neighbours of lists of 60 rows, and of 8 rows looked at: fewer found than asked for, so all are searched."""
    bank, _ = banked(vectors, KINDS[kind].model_copy(update={"lists": 64, "probes": 1}))
    found = bank.search(vectors[OTHER : OTHER + 50], np.ones(50, dtype=np.int64), 200)
    assert (found.rows >= OTHER).all()
    assert np.isfinite(found.distances).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 5, 300])
def test_defaults_suit_few_rows_too(vectors, kind, count):
    bank = Bank(vectors[:count], [(0, count)])
    settings = Index(kind=kind, lists=1000 if count == 5 else None)
    bank.attach(0, build_approximate(bank.rows_of(0), settings), 4)
    found = bank.search(vectors[:count], np.zeros(count, dtype=np.int64), 1)
    np.testing.assert_allclose(found.distances, 0, atol=1e-12)


def test_wrong_indexes_are_refused(vectors, tmp_path):
    bank, index = banked(vectors, KINDS["ivf"])
    with pytest.raises(StageError, match=r"index of group 0 holds 4000 vectors of 32 values, the bank \(500, 32\)"):
        bank.attach(0, index)
    with pytest.raises(StageError, match="no approximate index is of kind 'exact'; allowed: ivf, hnsw, pq"):
        build_approximate(vectors, Index())
    with pytest.raises(StageError, match="pq_parts=5 does not divide vectors of 32 values"):
        build_approximate(vectors, Index(kind="pq", pq_parts=5))
    (tmp_path / "text").write_text("not an index")
    for name in ("text", "absent"):
        with pytest.raises(StageError, match=f"{name} holds no faiss index"):
            load(tmp_path / name)
