"""Write a data set of simulated machines, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/simulate.py s3://bucket/fleet --machines fan,valve

The arguments are those of ``ray-asd simulate``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["simulate", *sys.argv[1:]])
