"""Write one comparison table of all METRICS below a root, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/report.py --runs s3://bucket/runs --out s3://bucket/report

The arguments are those of ``ray-asd report``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
