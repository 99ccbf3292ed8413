"""The index actor: exact search through Ray against FAISS in this process, the same bank, batch and threads.

    python -m ray_asd.benchmarks.index
    python -m ray_asd.benchmarks.index --bank 1000000 --repetitions 3    # 12 GB of memory

FAISS answers with what float32 inner products say; the actor's answers are those of float64, and name the clips.
"""

import tempfile
from functools import partial
from pathlib import Path

import click
import faiss
import numpy as np
import pyarrow as pa
import torch

from ray_asd import build
from ray_asd.benchmarks import measure
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Index, Resources, Worker
from ray_asd.engine import connection
from ray_asd.scoring.bank import create_vectors, open_vectors
from ray_asd.scoring.cosine import Vectors, float32_units, norms
from ray_asd.stages.detection import index
from ray_asd.stages.detection.bank_actors import Pool

_BLOCK = 10_000  # vectors drawn at once


@click.command()
@click.option("--bank", "sizes", default=[1_000, 100_000], multiple=True, show_default=True, help="Rows; repeatable.")
@click.option("--dim", default=768, show_default=True)
@click.option("--queries", default=1024, show_default=True)
@click.option("--neighbours", default=2, show_default=True)
@click.option("--repetitions", default=5, show_default=True)
def main(sizes: tuple[int, ...], dim: int, queries: int, neighbours: int, repetitions: int) -> None:
    """Time the search of one batch of queries in banks of random vectors."""
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 0  # else it does without BLAS where that is slower
    click.echo(measure.hardware("ray", "faiss-gpu", "faiss-cpu"))
    click.echo(f"{queries} queries of {dim} values, k={neighbours}, {repetitions} repetitions in turns\n")
    batch = np.random.default_rng(1).standard_normal((queries, dim), np.float32)
    names = [f"query {row}" for row in range(queries)]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, connection.connected(threads):
            bank = _bank(folder, size, dim)
            flat = _flat(bank, dim)
            with Pool(bank, Resources(index=Worker(cpus=threads))) as pool:
                variants: dict[str, measure.Work] = {
                    "through the actor": partial(pool.search, batch, [0] * queries, names, neighbours),
                    "FAISS": partial(_search, flat, batch, neighbours),
                }
                times = measure.alternate(variants, repetitions)
        click.echo(measure.rates(f"bank of {size:,}", "queries", queries, times) + "\n")


def _search(flat: faiss.IndexFlatIP, queries: Vectors, neighbours: int) -> object:
    return flat.search(_units(queries), neighbours)


def _bank(folder: str, size: int, dim: int) -> Output:
    """An output of the ``index`` stage with random vectors."""

    def work(attempt: Attempt) -> Outcome:
        random, local = np.random.default_rng(0), Path(folder) / "drawn"
        vectors = create_vectors(local, size, dim)
        for start in range(0, size, _BLOCK):
            vectors[start : start + _BLOCK] = random.standard_normal((min(_BLOCK, size - start), dim), np.float32)
            vectors.flush()
        keys = {"machine_type": ["fan"] * size, "section": ["00"] * size}
        clips = pa.table({**keys, "clip_id": [f"{row:09d}" for row in range(size)]})
        files = [attempt.put_file(index.VECTORS, local, size), attempt.put_table(f"{index.CLIPS}/00000.parquet", clips)]
        local.unlink()
        group = {"machine_type": "fan", "section": "00", "start": 0, "stop": size}
        return Outcome(files, {"clips": size}, {"dim": dim, "groups": [group]})

    key = Key("index", f"random-{size}", index.CODE_VERSION, Index().model_dump(mode="json"), {})
    return build.run(folder, key, work)


def _flat(bank: Output, dim: int) -> faiss.IndexFlatIP:
    vectors = open_vectors(bank.fetch(index.VECTORS), dim)
    flat = faiss.IndexFlatIP(dim)
    for start in range(0, len(vectors), _BLOCK):
        flat.add(_units(vectors[start : start + _BLOCK]))
    return flat


def _units(vectors: Vectors) -> Vectors:
    return float32_units(vectors, norms(vectors, "vector"))


if __name__ == "__main__":
    main()
