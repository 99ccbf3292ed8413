"""Check the recordings below a place and write CLIPS and REJECTS, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/ingest.py SRC --out s3://bucket/runs --max-rejects 10

The arguments are those of ``ray-asd ingest``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
