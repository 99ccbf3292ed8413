"""Who can mend what went wrong on Ray."""

import errno

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from ray_asd.engine.one_line import told
from ray_asd.errors import LeaseLost, Rejected, Retryable, StageError, Unplaced, UserError

LOST = WorkerHealthCheckFailedError("the worker is gone", RayActorError())


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ([UserError("channel 3; allowed: 0")], UserError, "train: channel 3; allowed: 0"),
        (
            [RuntimeError("connection closed by peer"), LOST],
            Retryable,
            "train: WorkerHealthCheckFailedError: the worker",
        ),
        ([LOST, UserError("channel 3")], UserError, "train: channel 3"),
        ([Unplaced("waited")], Retryable, "train: waited"),
        ([Rejected("missing", "a.wav")], StageError, "train: missing: a.wav"),
        ([LeaseLost("gone")], StageError, "train: gone"),
        ([OSError(errno.ESTALE, "Stale file handle")], Retryable, "train: OSError: "),
        ([FileNotFoundError(errno.ENOENT, "No such file")], StageError, "train: FileNotFoundError: "),
        ([RayActorError()], Retryable, "train: RayActorError: "),
        ([OutOfMemoryError("4 GiB of 4 GiB")], StageError, "train: OutOfMemoryError: "),
        (
            [RayTaskError("work", "traceback", ZeroDivisionError("by zero"))],
            StageError,
            "train: ZeroDivisionError: by zero",
        ),
        ([ValueError("first\nsecond"), KeyError("other")], StageError, "train: ValueError: first"),
    ],
)
def test_errors_of_workers(errors: list[Exception], kind: type[Exception], message: str) -> None:
    error = told("train", *errors)
    assert type(error) is kind
    assert str(error).startswith(message)
    assert "\n" not in str(error)
