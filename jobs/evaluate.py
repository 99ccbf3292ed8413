"""Write METRICS, with the floor row among them, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/evaluate.py --scores URI --scores URI --out s3://bucket/runs

The arguments are those of ``ray-asd evaluate``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
