"""Stages as a build: keyed by content, committed once, found again, traced and cleared away."""

from ray_asd.build.outputs import MARKER, File, Held, Marker, Output, Source, digest_of, find, resolve
from ray_asd.build.stage import PARTS, RECEIPTS, Attempt, Key, Outcome, commit, new_attempt, run, versions

__all__ = [
    "MARKER",
    "PARTS",
    "RECEIPTS",
    "Attempt",
    "File",
    "Held",
    "Key",
    "Marker",
    "Outcome",
    "Output",
    "Source",
    "commit",
    "digest_of",
    "find",
    "new_attempt",
    "resolve",
    "run",
    "versions",
]
