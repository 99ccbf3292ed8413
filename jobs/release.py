"""Release a detector: ``ray-asd release`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/release.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
