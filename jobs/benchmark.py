"""Run one of the benchmarks on the cluster's own hardware, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/benchmark.py embedding --family wavlm

The first argument names the benchmark; what follows are its own options (``--help`` lists them).
"""

import click

from ray_asd.benchmarks import augmentation, autoencoder, embedding, knn, limit, sweep, training
from ray_asd.console import run

benchmarks = click.Group(
    "benchmark",
    {
        "augmentation": augmentation.main,
        "autoencoder": autoencoder.main,
        "embedding": embedding.main,
        "knn": knn.main,
        "limit": limit.main,
        "sweep": sweep.main,
        "training": training.main,
    },
    help="Measure against what one would pick instead.",
)

if __name__ == "__main__":
    run(benchmarks, "benchmark")
