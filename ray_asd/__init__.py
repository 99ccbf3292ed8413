"""Anomalous sound detection with large pre-trained audio models, as distributed batch jobs on Ray."""

__version__ = "0.1.0"
