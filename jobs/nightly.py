"""Score a night of a fleet's recordings: ``ray-asd nightly`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/nightly.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
