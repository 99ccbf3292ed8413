"""Back-ends against a reference in plain float64: covariance, inverse root, densities, leaving out."""

import itertools

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import shrunk_covariance
from threadpoolctl import threadpool_limits

from ray_asd.config import Backend
from ray_asd.errors import StageError
from ray_asd.scoring import backend
from ray_asd.scoring.whitening import MIN_CLIPS, Scatter, inverse_root

SETTINGS = [
    Backend(neighbours=k, metric=metric, whiten=whiten, density=density, density_neighbours=K)
    for k, metric, whiten, (density, K) in itertools.product(
        (1, 3), ("cosine", "euclidean"), (None, 0.3), (("none", 1), ("ratio", 1), ("ratio", 2), ("difference", 2))
    )
]
NAMES = [f"{s.neighbours}-{s.metric}-{s.whiten}-{s.density}{s.density_neighbours}" for s in SETTINGS]


def drawn(count: int, dim: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dim)) * np.geomspace(0.1, 10, dim) + 5
    if ties:
        vectors = np.rint(vectors)
        vectors[1] = vectors[0]
    return vectors.astype(np.float32)


def distances(one: np.ndarray, other: np.ndarray, metric: str) -> np.ndarray:
    if metric == "euclidean":
        return np.sqrt(np.square(one[:, None] - other[None]).sum(axis=2))
    one, other = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (one, other))
    return 1 - (one[:, None] * other[None]).sum(axis=2)


def placed(vectors: np.ndarray, bank: np.ndarray, settings: Backend) -> np.ndarray:
    if settings.whiten is None:
        return vectors.astype(np.float64)
    exact = bank.astype(np.float64)
    covariance = shrunk_covariance(np.cov(exact.T, bias=True), shrinkage=settings.whiten)
    return (vectors - exact.mean(axis=0)) @ fractional_matrix_power(covariance, -0.5)


def reference(queries: np.ndarray, bank: np.ndarray, settings: Backend) -> np.ndarray:
    """Scores [Q], with nothing left out."""
    points, asked = placed(bank, bank, settings), placed(queries, bank, settings)
    found = distances(asked, points, settings.metric)
    if settings.density != "none":
        between = distances(points, points, settings.metric)
        np.fill_diagonal(between, np.inf)
        around = np.sort(between, axis=1)[:, : settings.density_neighbours].mean(axis=1)
        least = around[around > 1e-12].min() if (around > 1e-12).any() else 1.0
        around = np.where(around > 1e-12, around, least)
        found = found / around if settings.density == "ratio" else found - around
    return np.sort(found, axis=1)[:, : settings.neighbours].mean(axis=1)


def keys(count: int) -> list[str]:
    return [f"{number:02d}" for number in range(count)]


def none(queries: np.ndarray) -> np.ndarray:
    return np.full(len(queries), -1)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
@pytest.mark.parametrize(("count", "dim", "ties"), [(5, 4, False), (40, 6, True), (60, 90, False)])
def test_scores_are_the_reference(settings: Backend, count: int, dim: int, ties: bool) -> None:
    bank, queries = drawn(count, dim, ties=ties), drawn(30, dim, seed=1)
    fitted = backend.fit(bank, [None] * count, settings)
    found = fitted.search(queries, none(queries))
    np.testing.assert_allclose(found.scores, reference(queries, bank, settings), rtol=1e-10, atol=1e-14)
    assert found.rows.shape == found.values.shape == (30, settings.neighbours)
    np.testing.assert_array_equal(found.scores, found.values.mean(axis=1))


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_whatever_the_batch_the_bits_are_the_same_and_saving_changes_none(settings: Backend) -> None:
    bank, queries = drawn(50, 12), drawn(41, 12, seed=2)
    fitted = backend.fit(bank, [None] * 50, settings)
    together = fitted.search(queries, none(queries))
    for again in (fitted, backend.load(fitted.tensors(), bank, settings)):
        for part in np.split(np.random.default_rng(0).permutation(41), [1, 2, 17]):
            alone = again.search(queries[part], none(part))
            np.testing.assert_array_equal(alone.scores, together.scores[part])
            np.testing.assert_array_equal(alone.rows, together.rows[part])


@pytest.mark.parametrize("count", [30, 2000])
def test_any_number_of_threads_fits_the_same_bits(count: int) -> None:
    vectors, queries = drawn(count, 384), drawn(20, 384, seed=1)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            scatter = Scatter.of(vectors)
            fitted = backend.fit(vectors, [None] * count, Backend())
            scores = fitted.search(queries, none(queries)).scores
            found.append((scatter.products, inverse_root(scatter, None, 0.5), scores))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.whiten is None], ids=[n for n in NAMES if "None" in n])
@pytest.mark.parametrize("ties", [False, True])
def test_left_out_is_as_if_it_had_never_been_there(settings: Backend, ties: bool) -> None:
    bank = drawn(24, 5, ties=ties)
    rows, scores = backend.left_out(bank, [None] * 24, keys(24), settings)
    assert rows.tolist() == list(range(24))
    for row in range(2 if ties else 0, 24):  # what stands in for no density is of the whole group
        without = np.delete(bank, row, axis=0)
        expected = reference(bank[row : row + 1], without, settings)
        np.testing.assert_allclose(scores[row : row + 1], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("count", "folds"), [(30, 30), (130, 50)])
def test_whitening_is_fitted_anew_for_each_fold(count: int, folds: int) -> None:
    bank, settings = drawn(count, 5), Backend()
    names = [f"{(7 * n) % count:03d}" for n in range(count)]
    _, scores = backend.left_out(bank, [None] * count, names, settings)
    order = np.argsort(names)
    for fold in range(folds):
        apart = np.sort(order[fold::folds])
        expected = reference(bank[apart], np.delete(bank, apart, axis=0), settings)
        np.testing.assert_allclose(scores[apart], expected, rtol=1e-10)


def test_the_smaller_of_two_standardised_domains_counts() -> None:
    bank, queries = drawn(30, 4), drawn(9, 4, seed=3)
    bank[20:] += 40
    queries[5:] += 40
    settings = Backend(whiten=None, density="none", neighbours=2, banks="by_domain")
    domains = ["source"] * 20 + ["target"] * 10
    found = backend.fit(bank, domains, settings).search(queries, none(queries))
    pooled = Backend(whiten=None, density="none", neighbours=2)
    parts = []
    for part in (bank[:20], bank[20:]):
        own = backend.left_out(part, [None] * len(part), keys(len(part)), pooled)[1]
        centre, spread = backend.standard(own)
        parts.append((reference(queries, part, pooled) - centre) / spread)
    np.testing.assert_allclose(found.scores, np.minimum(*parts), rtol=1e-10)
    assert (found.rows[:5] < 20).all()
    assert (found.rows[5:] >= 20).all()
    few = ["source"] * 29 + ["target"]
    assert len(backend.fit(bank, few, settings).domains) == 1


def test_small_groups_are_whitened_by_the_fleet() -> None:
    few, fleet = drawn(6, 5, seed=4), Scatter.of(drawn(200, 5)) + Scatter.of(drawn(100, 5, seed=9) + 3)
    settings = Backend(density="none")
    ours = backend.fit(few, [None] * 6, settings, fleet)
    covariance = shrunk_covariance(fleet.covariance, shrinkage=0.5)
    np.testing.assert_allclose(ours.root, fractional_matrix_power(covariance, -0.5), rtol=1e-10)
    alike = backend.fit(np.ones((6, 5), np.float32), [None] * 6, Backend())
    assert np.isfinite(alike.search(few, none(few)).scores).all()


@pytest.mark.parametrize("count", [6, 19])
def test_what_is_left_out_of_a_small_group_is_left_out_of_the_fleet_too(count: int) -> None:
    few, others, settings = drawn(count, 5, seed=4), Scatter.of(drawn(200, 5)), Backend(density="none")
    _, scores = backend.left_out(few, [None] * count, keys(count), settings, others + Scatter.of(few))
    for row in range(count):
        rest = np.delete(few, row, axis=0).astype(np.float64)
        products = others.products + (len(rest) * np.cov(rest.T, bias=True))
        covariance = shrunk_covariance(products / (200 + len(rest)), shrinkage=0.5)
        root = fractional_matrix_power(covariance, -0.5)
        found = distances(
            (few[row : row + 1] - rest.mean(axis=0)) @ root, (rest - rest.mean(axis=0)) @ root, "euclidean"
        )
        np.testing.assert_allclose(scores[row], np.sort(found)[0, : settings.neighbours].mean(), rtol=1e-10)


def test_a_group_that_is_just_large_enough_is_judged_by_its_own_covariance() -> None:
    """Though without one of its clips it would be too small for that."""
    bank, fleet = drawn(MIN_CLIPS, 5), Scatter.of(drawn(200, 5, seed=9))
    alone, beside = (
        backend.left_out(bank, [None] * MIN_CLIPS, keys(MIN_CLIPS), Backend(), scatter)[1]
        for scatter in (None, fleet + Scatter.of(bank))
    )
    np.testing.assert_array_equal(alone, beside)


def test_clips_of_no_domain_are_healthy_in_both() -> None:
    bank, settings = drawn(50, 4), Backend(whiten=None, density="none", neighbours=1, banks="by_domain")
    domains = ["source"] * 20 + ["target"] * 10 + [None] * 20
    fitted = backend.fit(bank, domains, settings)
    found = fitted.search(bank[30:], none(bank[30:]))
    assert found.rows[:, 0].tolist() == list(range(30, 50))
    assert found.values.max() < 1e-6
    _, apart = backend.left_out(bank, domains, keys(50), settings, fitted=fitted)
    for row in (0, 25, 40):
        own = fitted.search(bank[row : row + 1], np.array([row]))
        assert own.scores[0] == apart[row]
        assert row not in own.rows


def test_a_large_group_is_searched_exactly() -> None:
    bank, queries = drawn(6_000, 16), drawn(50, 16, seed=5)
    settings = Backend(neighbours=1)
    fitted = backend.fit(bank, [None] * len(bank), settings)
    points, asked = fitted.domains[0].points.points, placed(queries, bank, settings)
    around = fitted.domains[0].points.surroundings
    assert around is not None
    expected = (distances(asked, points, "euclidean") / around.means).min(axis=1)
    np.testing.assert_allclose(fitted.search(queries, none(queries)).scores, expected, rtol=1e-10)


def test_no_direction_is_refused_in_a_bank() -> None:
    bank = drawn(6, 3)
    bank[2] = 0
    for settings in (Backend.model_validate("paper"), Backend(metric="cosine", whiten=None)):
        with pytest.raises(StageError):
            backend.fit(bank, [None] * 6, settings)


def test_a_collapsed_embedding_is_seen() -> None:
    healthy = drawn(30, 8)
    assert backend.median_nearest(healthy) > backend.COLLAPSED
    same = np.ones((30, 8), np.float32) * 7 + 1e-6 * drawn(30, 8)
    assert backend.median_nearest(same.astype(np.float32)) < backend.COLLAPSED


def test_of_a_large_group_so_many_are_drawn_whatever_their_names() -> None:
    names = [f"{'target' if n >= 2000 else 'source'}_{n:04d}" for n in range(2500)]
    bank, settings = drawn(2500, 2), Backend(whiten=None, density="none")
    rows, scores = backend.left_out(bank, [None] * 2500, names, settings)
    assert len(rows) == len(scores) == backend.MAX_LEFT_OUT
    share = np.mean(rows >= 2000)
    assert 0.15 < share < 0.25, "a fifth of the clips are target clips"


def test_a_domain_that_a_fold_could_empty_shares_its_bank() -> None:
    settings = Backend(banks="by_domain", neighbours=1, density="none")
    few = ["source"] * 30 + ["target"] * backend.needed(settings)
    assert not backend.is_split(few, settings)
    assert backend.is_split([*few, "target"], settings)
    bank = drawn(len(few) + 1, 3)
    _, scores = backend.left_out(bank, [*few, "target"], keys(len(bank)), settings)
    for row in range(len(bank)):
        rest = [n for n in range(len(bank)) if n != row]
        domains = [[*few, "target"][n] for n in rest]
        without = backend.fit(bank[rest], domains, settings, split=True)
        assert len(without.domains) == 2
        assert scores[row] == without.search(bank[row][None], np.array([-1])).scores[0]
