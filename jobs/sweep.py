"""Train, score and compare all cells of a grid: ``ray-asd sweep`` as a Ray job."""

from ray_asd.cli import job

if __name__ == "__main__":
    job(__file__)
