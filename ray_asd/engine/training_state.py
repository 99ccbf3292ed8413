"""Checkpoints of a training run that can be trusted after any kill: data first, then a record that makes it count.

Below ``<stage folder>/checkpoints/`` each try of a process that trained has its Ray Train folder,
``<token>-<failures>/``, where it puts ``step-<n>/state.pt``; last it writes the record ``step-<n>-<token>.json`` with
the file's sha256. A torn or missing file only means that the record before it is used.
"""

from pathlib import Path

from pydantic import BaseModel

from ray_asd import store
from ray_asd.store.lease import Fence

STATE = "state.pt"
_KEPT = 2  # the newest ones: one may turn out to be torn


class Record(BaseModel):
    """A saved training state: after how many steps, which file, and its sha256 in hex."""

    step: int
    path: str
    sha256: str


def root(fence: Fence) -> str:
    """Where the Ray Train folders lie, each called ``run_name``."""
    return store.join(fence.folder, "checkpoints")


def run_name(fence: Fence, failures: int) -> str:
    """Another one for every process that takes the lease and each of its tries.

    What an orphaned worker still writes is its own.
    """
    return f"{fence.token:06d}-{failures}"


def save(fence: Fence, run: str, step: int, state: Path) -> str:
    """Store the local file ``state`` as the run's state after ``step`` steps, drop old ones; the URI of its folder.

    Raises:
        LeaseLost: another process trains this run now.
    """
    fence.check()
    folder = store.join(run, f"step-{step:08d}")
    record = Record(step=step, path=store.join(folder, STATE), sha256=store.sha256(str(state)))
    store.upload(state, _place(fence, record.path))
    store.write(_place(fence, f"step-{step:08d}-{fence.token:06d}.json"), record.model_dump_json().encode())
    for old in _records(fence)[_KEPT:]:
        dropped = Record.model_validate_json(store.read(_place(fence, old)))
        store.remove(_place(fence, old))
        store.remove(_place(fence, store.parent(dropped.path)))
    return _place(fence, folder)


def latest(fence: Fence) -> Record | None:
    """The newest whole state of any process that ever trained this run; None before the first."""
    for name in _records(fence):
        record = Record.model_validate_json(store.read(_place(fence, name)))
        uri = _place(fence, record.path)
        if store.exists(uri) and store.sha256(uri) == record.sha256:
            return record
    return None


def steps(fence: Fence) -> int:
    """After how many steps the newest state was recorded, whole or not."""
    return max((int(name.split("-")[1]) for name in _records(fence)), default=0)


def fetch(fence: Fence, record: Record) -> Path:
    """The state as a local file."""
    return store.fetch(_place(fence, record.path), record.sha256)


def _records(fence: Fence) -> list[str]:
    names = store.files(root(fence))
    return sorted((name for name in names if name.startswith("step-") and name.endswith(".json")), reverse=True)


def _place(fence: Fence, name: str) -> str:
    return store.join(root(fence), name)
