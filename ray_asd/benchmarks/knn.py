"""The k-NN: the exact bank against a bare FAISS index and against scikit-learn, all cosine.

    python -m ray_asd.benchmarks.knn

FAISS and scikit-learn answer with what float32 inner products say; the bank's answers are those of float64, ties
included.
"""

import click
import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from ray_asd.benchmarks import measure
from ray_asd.benchmarks.measure import Work
from ray_asd.scoring.knn import Bank

Vectors = NDArray[np.float32]


@click.command()
@click.option(
    "--bank", "sizes", default=[1_000, 100_000], multiple=True, show_default=True, help="Vectors; repeatable."
)
@click.option("--dim", default=768, show_default=True)
@click.option("--queries", default=1024, show_default=True)
@click.option("--neighbours", default=2, show_default=True)
@click.option("--repetitions", default=5, show_default=True)
def main(sizes: tuple[int, ...], dim: int, queries: int, neighbours: int, repetitions: int) -> None:
    """Time the search of one batch of queries in banks of random vectors."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    click.echo(measure.hardware("faiss-gpu", "faiss-cpu", "scikit-learn"))
    click.echo(f"{queries} queries of {dim} values, k={neighbours}, {repetitions} repetitions in turns\n")
    random = np.random.default_rng(0)
    batch = random.standard_normal((queries, dim), dtype=np.float32)
    for size in sizes:
        vectors = random.standard_normal((size, dim), dtype=np.float32)
        times = measure.alternate(_variants(vectors, batch, neighbours), repetitions)
        own = times["ray_asd"].median
        rows = [
            [name, str(taken), f"{queries / taken.median:,.0f}", f"{taken.median / own:.2f}"]
            for name, taken in times.items()
        ]
        click.echo(measure.table([f"bank of {size:,}", "s", "queries/s", "ray_asd is faster"], rows) + "\n")


def _variants(vectors: Vectors, queries: Vectors, neighbours: int) -> dict[str, Work]:
    bank = Bank(vectors, [f"{row:09d}" for row in range(len(vectors))])
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(_unit(vectors))
    brute = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute").fit(vectors)
    return {
        "ray_asd": lambda: bank.search(queries, neighbours),
        "FAISS": lambda: index.search(_unit(queries), neighbours),
        "scikit-learn": lambda: brute.kneighbors(queries),
    }


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
