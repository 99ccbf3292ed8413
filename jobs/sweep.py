"""Train, score and compare all cells of a grid, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/sweep.py --recipe paper --clips URI --out s3://bucket/runs

The arguments are those of ``ray-asd sweep``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
