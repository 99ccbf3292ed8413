"""Where the cluster is, told without importing Ray."""

import os


def cluster() -> str | None:
    """The address of the cluster to work on, ``RAY_ADDRESS``; None for a Ray of this command's own."""
    return os.environ.get("RAY_ADDRESS") or None
