"""Check recordings: ``ray-asd ingest`` as a Ray job."""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
