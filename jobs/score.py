"""Score test clips against the healthy clips of their machine, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/score.py --model URI --clips URI --out s3://bucket/runs

The arguments are those of ``ray-asd score``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
