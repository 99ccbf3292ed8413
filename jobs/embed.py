"""Write one embedding per clip, as a Ray job.

    ray job submit --working-dir . -- /usr/bin/python3 jobs/embed.py --model URI --clips URI --out s3://bucket/runs

The arguments are those of ``ray-asd embed``.
"""

import sys

from ray_asd.cli import main

if __name__ == "__main__":
    main(["embed", *sys.argv[1:]])
