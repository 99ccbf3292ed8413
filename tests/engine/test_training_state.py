"""Training states: what counts after a kill between any two writes, and what is dropped."""

from pathlib import Path

import pytest

from ray_asd import store
from ray_asd.engine import training_state
from ray_asd.errors import LeaseLost
from ray_asd.store.lease import Fence


@pytest.fixture
def fence(root: str) -> Fence:
    return Fence(root, 1)


def save(fence: Fence, step: int, folder: Path, content: bytes | None = None) -> str:
    state = folder / "state"
    state.write_bytes(content or b"state after %d" % step)
    return training_state.save(fence, training_state.run_name(fence, 0), step, state)


def files(fence: Fence) -> list[str]:
    return [entry.path for entry in store.listing(training_state.root(fence))]


def latest(fence: Fence) -> tuple[int, bytes] | None:
    record = training_state.latest(fence)
    return record and (record.step, training_state.fetch(fence, record).read_bytes())


def test_there_is_no_state_before_the_first(fence: Fence) -> None:
    assert training_state.latest(fence) is None


def test_the_newest_state_counts_and_the_one_before_is_kept(fence: Fence, tmp_path: Path) -> None:
    for step in (5, 10, 100):  # in order of number, not of text
        place = save(fence, step, tmp_path)
        assert latest(fence) == (step, b"state after %d" % step)
        assert store.read(store.join(place, training_state.STATE)) == b"state after %d" % step
    assert files(fence) == [
        "000001-0/step-00000010/state.pt",
        "000001-0/step-00000100/state.pt",
        "step-00000010-000001.json",
        "step-00000100-000001.json",
    ]


def test_data_without_a_record_does_not_count(fence: Fence, tmp_path: Path) -> None:
    """Killed after the data, before the record; the next try writes the same place again."""
    save(fence, 5, tmp_path)
    store.write(store.join(training_state.root(fence), "000001-0/step-00000010/state.pt"), b"half of it")
    assert latest(fence) == (5, b"state after 5")
    save(fence, 10, tmp_path)
    assert latest(fence) == (10, b"state after 10")


@pytest.mark.parametrize("harm", ["torn", "other", "gone"])
def test_a_state_that_is_not_whole_gives_way_to_the_one_before(fence: Fence, tmp_path: Path, harm: str) -> None:
    save(fence, 5, tmp_path)
    data = store.join(save(fence, 10, tmp_path), training_state.STATE)
    if harm == "gone":
        store.remove(data)
    else:
        store.write(data, b"state af" if harm == "torn" else b"state after 99")
    assert latest(fence) == (5, b"state after 5")


def test_a_run_goes_on_from_what_another_process_left(fence: Fence, tmp_path: Path) -> None:
    for step in (5, 10):
        save(fence, step, tmp_path)
    successor = Fence(fence.folder, 2)
    assert latest(successor) == (10, b"state after 10")
    save(successor, 10, tmp_path, b"the same step again")
    assert latest(successor) == (10, b"the same step again")
    save(successor, 15, tmp_path)
    assert files(fence) == [
        "000002-0/step-00000010/state.pt",
        "000002-0/step-00000015/state.pt",
        "step-00000010-000002.json",
        "step-00000015-000002.json",
    ]


def test_an_orphan_writes_nothing(fence: Fence, tmp_path: Path) -> None:
    save(fence, 5, tmp_path)
    before = files(fence)
    store.write(store.join(fence.folder, "lease-000002.json"), b"{}")
    with pytest.raises(LeaseLost, match="token 2 after 1"):
        save(fence, 10, tmp_path)
    assert files(fence) == before
