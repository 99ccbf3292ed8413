"""Fine-tune the system that a recipe describes: ``ray-asd train`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/train.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
