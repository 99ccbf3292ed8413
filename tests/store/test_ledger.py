"""The history that is its own state: one writer for each number, on disk and on S3."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_asd import store
from ray_asd.errors import StageError
from ray_asd.store import ledger
from s3_faults import failing


def test_entries_are_appended_one_by_one(root: str) -> None:
    assert (ledger.newest(root), ledger.entries(root)) == (0, [])
    for number in range(1, 12):
        assert ledger.append(root, number, {"id": number})
    assert not ledger.append(root, 11, {"id": "another"})
    assert ledger.newest(root) == 11
    assert ledger.entry(root, 3) == {"id": 3}
    assert [said["id"] for said in ledger.entries(root)] == list(range(1, 12)), "in order of numbers, not of letters"
    assert store.files(root)[0] == "000001.json"


def test_of_many_that_decide_on_the_same_one_wins(root: str) -> None:
    def add(who: int) -> int:
        """Tries of a counter that reads, adds, and appends with the number behind it, until ten were its own."""
        tries, mine = 0, 0
        while mine < 5:
            tries += 1
            number = ledger.newest(root)
            value = ledger.entry(root, number)["value"] if number else 0
            mine += ledger.append(root, number + 1, {"value": value + 1, "who": who})
        return tries

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(add, range(3))) >= 15
    assert [said["value"] for said in ledger.entries(root)] == list(range(1, 16)), "no addition was lost"


def test_a_lost_answer_is_known_as_ones_own(bucket: str) -> None:
    with failing("lost"):
        assert ledger.append(bucket, 1, {"id": "mine"})
    with failing("lost"):
        assert not ledger.append(bucket, 1, {"id": "yours"})


def test_what_is_no_entry_is_named(tmp_path: Path) -> None:
    place = str(tmp_path)
    ledger.append(place, 1, {"id": 1})
    ledger.append(place, 3, {"id": 3})
    with pytest.raises(StageError, match=rf"^{place}/000002.json is missing$"):
        ledger.entries(place)
    for content, why in ((b"{", "is no JSON"), (b"\xff", "is no JSON"), (b"[]", r"holds no entry but \[\]")):
        (tmp_path / "000002.json").write_bytes(content)
        with pytest.raises(StageError, match=rf"^{place}/000002.json {why}"):
            ledger.entries(place)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "old.json").touch()
    assert ledger.newest(place) == 3
