"""Write the page of a fleet's night: ``ray-asd morning`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/morning.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
