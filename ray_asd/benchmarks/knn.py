"""The k-NN: the exact bank against bare FAISS indexes and against scikit-learn, all cosine.

    python -m ray_asd.benchmarks.knn
    python -m ray_asd.benchmarks.knn --bank 1000000 --against FAISS --repetitions 3    # 10 GB of memory
    python -m ray_asd.benchmarks.knn --groups 1000 --bank 1000 --queries 2500          # 10 GB of memory

FAISS and scikit-learn answer with what float32 inner products say, one index for each group; the bank's answers are
those of float64, ties included.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import click
import faiss
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from ray_asd.benchmarks import measure
from ray_asd.benchmarks.measure import Work
from ray_asd.scoring.bank import Bank
from ray_asd.scoring.cosine import Rows, Vectors

Search = Callable[[Vectors, int], object]


@click.command()
@click.option(
    "--bank", "sizes", default=[1_000, 100_000], multiple=True, show_default=True, help="Rows of a group; repeatable."
)
@click.option("--groups", default=1, show_default=True, help="Groups, each of that many rows.")
@click.option("--dim", default=768, show_default=True)
@click.option("--queries", default=1024, show_default=True, help="Over all groups, at random.")
@click.option("--neighbours", default=2, show_default=True)
@click.option("--repetitions", default=5, show_default=True)
@click.option("--against", type=click.Choice(["FAISS", "scikit-learn"]), multiple=True, help="[default: both]")
def main(
    sizes: tuple[int, ...],
    groups: int,
    dim: int,
    queries: int,
    neighbours: int,
    repetitions: int,
    against: tuple[str, ...],
) -> None:
    """Time the search of one batch of queries in banks of random vectors."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    click.echo(measure.hardware("faiss-gpu", "faiss-cpu", "scikit-learn"))
    click.echo(f"{queries} queries of {dim} values, k={neighbours}, {repetitions} repetitions in turns\n")
    random = np.random.default_rng(0)
    batch = random.standard_normal((queries, dim), dtype=np.float32)
    group_of = np.sort(random.integers(0, groups, queries))
    for size in sizes:
        vectors = random.standard_normal((groups * size, dim), dtype=np.float32)
        variants = _variants(vectors, size, batch, group_of, neighbours, against or ("FAISS", "scikit-learn"))
        times = measure.alternate(variants, repetitions)
        title = f"bank of {size:,}" if groups == 1 else f"{groups:,} groups of {size:,}"
        click.echo(measure.rates(title, "queries", queries, times) + "\n")


def _variants(
    vectors: Vectors, size: int, queries: Vectors, group_of: Rows, neighbours: int, against: tuple[str, ...]
) -> dict[str, Work]:
    ranges = [(start, start + size) for start in range(0, len(vectors), size)]
    bank = Bank(vectors, ranges)
    variants: dict[str, Work] = {"ray_asd": lambda: bank.search(queries, group_of, neighbours)}
    for name, made in (("FAISS", _faiss), ("scikit-learn", _scikit_learn)):
        if name in against:
            searches = [made(vectors[start:stop]) for start, stop in ranges]
            variants[name] = partial(_each_group, searches, queries, group_of, neighbours)
    return variants


def _each_group(searches: list[Search], queries: Vectors, group_of: Rows, neighbours: int) -> None:
    edges = np.searchsorted(group_of, np.arange(len(searches) + 1)).tolist()
    for search, (start, stop) in zip(searches, pairwise(edges), strict=True):
        if start < stop:
            search(queries[start:stop], neighbours)


def _faiss(vectors: Vectors) -> Search:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(_unit(vectors))
    return lambda queries, neighbours: index.search(_unit(queries), neighbours)


def _scikit_learn(vectors: Vectors) -> Search:
    brute = NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors)
    return lambda queries, neighbours: brute.kneighbors(queries, neighbours)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
