"""Write the pages: ``ray-asd report`` as a Ray job.

ray job submit --working-dir . -- /usr/bin/python3 jobs/report.py --help
"""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
