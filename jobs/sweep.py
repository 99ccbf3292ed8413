"""Train, score and compare all cells of a grid: ``ray-asd sweep`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/sweep.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
