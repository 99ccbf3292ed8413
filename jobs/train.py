"""Fine-tune the system that a recipe describes, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/train.py --recipe paper --clips URI --out s3://bucket/runs

The arguments are those of ``ray-asd train``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
