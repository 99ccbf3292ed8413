"""Write METRICS: ``ray-asd evaluate`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/evaluate.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
