"""Checkpoints of a training run that can be trusted after any kill: data first, then a record that makes it count.

They lie in ``<stage folder>/checkpoints/``: ``step-<n>-<token>.pt`` and, written last, ``step-<n>-<token>.json`` with
its sha256. A torn or missing file only means that the record before it is used.
"""

from pathlib import Path

from pydantic import BaseModel

from ray_asd import storage
from ray_asd.lease import Fence

_KEPT = 2  # the newest ones: one may turn out to be torn
FOLDER = "checkpoints"


class Record(BaseModel):
    """A saved training state: after how many steps, which file, and its sha256 in hex."""

    step: int
    path: str
    sha256: str


def save(fence: Fence, step: int, state: Path) -> None:
    """Store the local file ``state`` as the run's state after ``step`` steps, and drop old ones.

    Raises:
        LeaseLost: another process trains this run now.
    """
    fence.check()
    name = f"step-{step:08d}-{fence.token:06d}"
    record = Record(step=step, path=f"{name}.pt", sha256=storage.sha256(str(state)))
    storage.upload(state, _place(fence, record.path))
    storage.write(_place(fence, f"{name}.json"), record.model_dump_json().encode())
    for old in _records(fence)[_KEPT:]:
        storage.remove(_place(fence, old))
        storage.remove(_place(fence, old.replace(".json", ".pt")))


def latest(fence: Fence) -> Record | None:
    """The newest whole state of any process that ever trained this run; None before the first."""
    for name in _records(fence):
        record = Record.model_validate_json(storage.read(_place(fence, name)))
        uri = _place(fence, record.path)
        if storage.exists(uri) and storage.sha256(uri) == record.sha256:
            return record
    return None


def fetch(fence: Fence, record: Record) -> Path:
    """The state as a local file."""
    return storage.fetch(_place(fence, record.path), record.sha256)


def _records(fence: Fence) -> list[str]:
    names = storage.files(storage.join(fence.folder, FOLDER))
    return sorted((name for name in names if name.startswith("step-") and name.endswith(".json")), reverse=True)


def _place(fence: Fence, name: str) -> str:
    return storage.join(fence.folder, FOLDER, name)
