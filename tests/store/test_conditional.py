"""Stores that have no conditional writes are refused before anything rests on them."""

import os
from pathlib import Path

import pytest

from ray_asd import build, store
from ray_asd.build import steps
from ray_asd.errors import Retryable, UserError
from s3_faults import failing, through

ALLOWED = "allowed: an S3 store that knows If-None-Match, a folder that may be written and knows hard links"


def test_a_store_that_has_them_is_asked_once(bucket: str) -> None:
    with through() as proxy:
        store.check_conditional_writes(bucket)
        asked = proxy.statistics()[0]
        assert asked > 0
        store.check_conditional_writes(bucket)
        assert proxy.statistics()[0] == asked


def test_any_number_of_processes_finds_the_same(root: str) -> None:
    for _ in range(3):
        store.check_conditional_writes.cache_clear()
        store.check_conditional_writes(root)
    assert store.files(root) == []


def test_a_store_that_ignores_the_condition_is_refused(bucket: str) -> None:
    refusal = rf"^{bucket}: conditional writes overwrite there what another run has written; {ALLOWED}$"
    with through("--without", "If-None-Match"):
        for _ in range(2):
            with pytest.raises(UserError, match=refusal):
                store.check_conditional_writes(bucket)


@pytest.mark.parametrize("exclusive", [False, True])
def test_no_work_is_begun_on_such_a_store(bucket: str, exclusive: bool) -> None:
    def work(*given: object) -> build.Outcome:
        raise AssertionError("it was begun")

    step = steps.Step("train", "x", 1, {}, {}, work, units=1, exclusive=exclusive)
    with through("--without", "If-None-Match"), pytest.raises(UserError, match="conditional writes overwrite"):
        steps.ensure(step, bucket)
    assert store.folders(bucket) == []


def test_what_is_finished_is_found_on_any_store(bucket: str) -> None:
    step = steps.Step("train", "x", 1, {}, {}, lambda *given: build.Outcome([], {}), units=1)
    steps.ensure(step, bucket)
    store.check_conditional_writes.cache_clear()
    with through("--without", "If-None-Match"):
        assert steps.ensure(step, bucket).reused


def test_a_store_that_says_it_has_none_is_refused(bucket: str) -> None:
    refusal = rf"^{bucket}: conditional writes are refused there: s3://\S+: .*\(NotImplemented\).*; {ALLOWED}$"
    with failing("NotImplemented"), pytest.raises(UserError, match=refusal) as caught:
        store.check_conditional_writes(bucket)
    assert "\n" not in str(caught.value)


def test_a_store_that_does_not_answer_is_not_refused(bucket: str) -> None:
    with through("--rate", "1", "--kinds", "unavailable", AWS_MAX_ATTEMPTS="1"), pytest.raises(Retryable):
        store.check_conditional_writes(bucket)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"^{tmp_path}/file: conditional writes are refused there: .*; {ALLOWED}$"):
        store.check_conditional_writes(os.fspath(tmp_path / "file"))
