"""Run one of the benchmarks on the cluster's own hardware, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/benchmark.py embedding --family wavlm

The first argument names the benchmark; what follows are its own options (``--help`` lists them).
"""

import click

from ray_asd.benchmarks import (
    archive,
    augmentation,
    autoencoder,
    bank,
    embedding,
    fleet,
    index,
    knn,
    limit,
    mutations,
    pipeline,
    planning,
    resume,
    sweep,
    training,
)
from ray_asd.cli.console import run

benchmarks = click.Group(
    "benchmark",
    {
        "archive": archive.main,
        "augmentation": augmentation.main,
        "autoencoder": autoencoder.main,
        "bank": bank.main,
        "embedding": embedding.main,
        "fleet": fleet.main,
        "index": index.main,
        "knn": knn.main,
        "limit": limit.main,
        "mutations": mutations.main,
        "pipeline": pipeline.main,
        "planning": planning.main,
        "resume": resume.main,
        "sweep": sweep.main,
        "training": training.main,
    },
    help="Measure against what one would pick instead.",
)

if __name__ == "__main__":
    run(benchmarks, "benchmark")
