"""A large bank from its first row to an answer: seconds and peak memory of each step, each in a process of its own.

    python -m ray_asd.benchmarks.bank
    python -m ray_asd.benchmarks.bank --set scoring.index.kind=ivf

Its vectors are random around random centres, so that an approximate index has something to find.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from ray_asd import config
from ray_asd.benchmarks import measure
from ray_asd.config import Index
from ray_asd.scoring import bank, knn
from ray_asd.scoring.cosine import Vectors, merge

_BLOCK = 8192  # rows written at a time


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--dim", default=768, show_default=True)
@click.option("--queries", default=1024, show_default=True)
@click.option("--neighbours", default=2, show_default=True)
@click.option("--shards", default=1, show_default=True, help="Searched one after the other, then merged.")
@click.option("--sample", default=256, show_default=True, help="Rows that recall is measured on.")
@click.option("--set", "settings", multiple=True, help="A setting, such as scoring.index.kind=hnsw; repeatable.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the files go.  [default: a temporary one]")
def main(
    rows: int,
    dim: int,
    queries: int,
    neighbours: int,
    shards: int,
    sample: int,
    settings: tuple[str, ...],
    folder: Path | None,
) -> None:
    """Write a bank block by block, open it and search it, with an approximate index if one is asked for."""
    plain = config.Usage(scoring=config.Scoring(backend=config.Backend.model_validate("paper")))
    index = config.usage(plain, settings).scoring.index
    if index.kind != "exact" and shards > 1:
        raise click.UsageError(f"--shards {shards}: an approximate index is built of the whole bank; allowed: 1")
    click.echo(measure.hardware("faiss-gpu", "faiss-cpu"))
    click.echo(f"bank of {rows:,} x {dim}, {queries} queries, k={neighbours}, {shards} shard(s), index {index.kind}\n")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        steps: list[tuple[str, Callable[..., object], tuple[Any, ...]]] = [("write", _write, (place, rows, dim))]
        if index.kind != "exact":
            steps.append(("build the index and save it", _build, (place, dim, index)))
        steps.append(("open and search", _search, (place, dim, queries, neighbours, shards, index)))
        if index.kind != "exact":
            steps.append(("recall", _recall, (place, dim, neighbours, sample, index)))
        table = [[name, *_alone(step, *arguments)] for name, step, arguments in steps]
        size = sum(path.stat().st_size for path in place.iterdir())
    click.echo(measure.table(["step", "s", "peak memory, GB", ""], table))
    click.echo(f"\nfiles: {size / 1e9:.2f} GB")


def _alone(step: Callable[..., object], *arguments: object) -> list[str]:
    """Seconds, peak memory in GB and what the step has to say, from a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, peak, said = pool.apply(_measured, (step, *arguments))
    return [f"{seconds:.1f}", f"{peak / 1e9:.2f}", str(said or "")]


def _measured(step: Callable[..., object], *arguments: object) -> tuple[float, float, object]:
    begun = time.perf_counter()
    said = step(*arguments)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, said


def _write(place: Path, rows: int, dim: int) -> None:
    vectors, start = bank.create_vectors(place / "vectors", rows, dim), 0
    for block in _blocks(rows, dim):
        vectors[start : start + len(block)] = block
        start += len(block)
        vectors.flush()


def _blocks(rows: int, dim: int) -> Iterator[Vectors]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((256, dim), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        yield centres[random.integers(0, 256, count)] + random.standard_normal((count, dim), dtype=np.float32)


def _build(place: Path, dim: int, settings: Index) -> None:
    knn.save(knn.build_approximate(bank.open_vectors(place / "vectors", dim), settings), place / "index")


def _search(place: Path, dim: int, queries: int, neighbours: int, shards: int, settings: Index) -> str:
    vectors = bank.open_vectors(place / "vectors", dim)
    batch = next(_blocks(queries, dim))
    group_of = np.zeros(len(batch), dtype=np.int64)
    opening = searching = 0.0
    parts = []
    for lo, hi in bank.shard_ranges(len(vectors), shards):
        begun = time.perf_counter()
        part = _opened(place, vectors[lo:hi], len(vectors), lo, settings)
        opened = time.perf_counter()
        parts.append(part.search(batch, group_of, neighbours))
        opening, searching = opening + opened - begun, searching + time.perf_counter() - opened
    merge(parts, neighbours)
    return f"opened in {opening:.1f} s, {len(batch) / searching:,.0f} queries/s"


def _opened(place: Path, vectors: Vectors, rows: int, first_row: int, settings: Index) -> bank.Bank:
    opened = bank.Bank(vectors, [(0, rows)], first_row=first_row)
    if settings.kind != "exact":
        opened.attach(0, knn.load(place / "index"), settings.refine)
    return opened


def _recall(place: Path, dim: int, neighbours: int, sample: int, settings: Index) -> str:
    vectors = bank.open_vectors(place / "vectors", dim)
    return f"{_opened(place, vectors, len(vectors), 0, settings).recall(0, neighbours, sample):.4f}"


if __name__ == "__main__":
    main()
