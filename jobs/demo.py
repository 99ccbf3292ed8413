"""Run everything once on a simulated fleet, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/demo.py --out /data/ray_asd_demo

The arguments are those of ``ray-asd demo``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])
