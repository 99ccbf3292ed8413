"""The index actor: exact search through Ray against FAISS in this process, the same bank, batch and threads.

    python -m ray_asd.benchmarks.index
    python -m ray_asd.benchmarks.index --bank 1000000 --repetitions 3    # 12 GB of memory
    python -m ray_asd.benchmarks.index --gpu

FAISS answers with what float32 inner products say; the actor's answers are those of float64, and name the clips. With
a GPU both search there.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import pyarrow as pa
import torch

from ray_asd import build, tables
from ray_asd.benchmarks import measure
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Resources, Threshold, Worker
from ray_asd.engine import connection
from ray_asd.scoring.bank import create_vectors, open_vectors
from ray_asd.scoring.cosine import Vectors, float32_units, norms
from ray_asd.stages.detection import assembly, detector, enroll
from ray_asd.stages.detection.bank_actors import Pool
from ray_asd.stages.detection.healthy import VECTORS, Source
from ray_asd.stages.training.usage import LOG_MEL, features

NEIGHBOURS = 2  # the paper's
_BLOCK = 10_000  # vectors drawn at once


@click.command()
@click.option("--bank", "sizes", default=[1_000, 100_000], multiple=True, show_default=True, help="Rows; repeatable.")
@click.option("--dim", default=768, show_default=True)
@click.option("--queries", default=1024, show_default=True)
@click.option("--repetitions", default=5, show_default=True)
@click.option("--gpu/--no-gpu", default=False, show_default=True, help="Whether the banks are searched on one.")
def main(sizes: tuple[int, ...], dim: int, queries: int, repetitions: int, gpu: bool) -> None:
    """Time the search of one batch of queries in banks of random vectors."""
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 0  # else it does without BLAS where that is slower
    click.echo(measure.hardware("ray", "faiss-gpu", "faiss-cpu"))
    click.echo(f"{queries} queries of {dim} values, k={NEIGHBOURS}, {repetitions} repetitions in turns\n")
    batch = np.random.default_rng(1).standard_normal((queries, dim), np.float32)
    names = [f"query {row}" for row in range(queries)]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, connection.connected(threads):
            bank = _detector(folder, size, dim)
            flat: Any = _flat(bank, dim)
            if gpu:
                flat = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, flat)
            with Pool(bank, detector.read(bank), Resources(index=Worker(cpus=threads, gpus=int(gpu)))) as pool:
                variants: dict[str, measure.Work] = {
                    "through the actor": partial(pool.compare, batch, 0, np.zeros(queries, np.int64), names),
                    "FAISS": partial(_search, flat, batch, NEIGHBOURS),
                }
                times = measure.alternate(variants, repetitions)
        click.echo(measure.rates(f"bank of {size:,}", "queries", queries, times) + "\n")


def _search(flat: Any, queries: Vectors, neighbours: int) -> object:
    return flat.search(_units(queries), neighbours)


def _detector(folder: str, size: int, dim: int) -> Output:
    """A detector whose bank are random vectors, compared as the paper does."""
    random, local = np.random.default_rng(0), Path(folder) / "drawn"
    vectors = create_vectors(local, size, dim)
    for start in range(0, size, _BLOCK):
        vectors[start : start + _BLOCK] = random.standard_normal((min(_BLOCK, size - start), dim), np.float32)
    names = [f"{row:09d}" for row in range(size)]
    same: dict[str, Any] = {
        "machine_type": "fan",
        "section": "00",
        "domain": "source",
        "twins": [],
        "role": "bank",
        "score": None,
    }
    columns = {name: [value] * size for name, value in same.items()} | {"clip_id": names, "content_hash": names}
    source = Source(pa.table(columns).select(tables.HEALTHY.names).cast(tables.HEALTHY), lambda: iter([vectors]))

    def work(attempt: Attempt) -> Outcome:
        member = features(LOG_MEL)
        return assembly.made(attempt, assembly.Plan([member], [[source]], [member.provenance()], Threshold(), {}))

    return build.run(folder, Key("enroll", f"random-{size}", enroll.CODE_VERSION, {}, {}), work)


def _flat(bank: Output, dim: int) -> faiss.IndexFlatIP:
    vectors = open_vectors(bank.fetch(f"members/0/{VECTORS}"), dim)
    flat = faiss.IndexFlatIP(dim)
    for start in range(0, len(vectors), _BLOCK):
        flat.add(_units(vectors[start : start + _BLOCK]))
    return flat


def _units(vectors: Vectors) -> Vectors:
    return float32_units(vectors, norms(vectors, "vector"))


if __name__ == "__main__":
    main()
