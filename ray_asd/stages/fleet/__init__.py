"""Releases: the registry of detectors, and what a candidate has to show before it becomes current."""
