"""Recordings in: CLIPS and REJECTS, and the training set."""
