"""Shards on Ray: what comes out does not depend on workers, and what goes wrong is said in one line."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

import processes
from ray_asd import build, store
from ray_asd.build import Attempt
from ray_asd.config import Worker
from ray_asd.engine import cutting, shards
from ray_asd.engine.progress import silent
from ray_asd.engine.receipts import Done
from ray_asd.errors import Retryable, StageError, UserError

pytestmark = pytest.mark.usefixtures("by_value")

ROWS = pa.table({"number": range(20)})


class Squares:
    """Writes the squares of its rows, after doing something to each number."""

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.before = before

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Done:
        values = rows["number"].to_pylist()
        for value in values:
            self.before(value)
        file = attempt.put(f"squares/{name}", repr([value**2 for value in values]).encode())
        return Done([file], {"rows": len(values), f"shards of {len(values)}": 1})


def squares(
    place: str, before: Callable[[int], None] | None = None, workers: int | None = None, worker: Worker = Worker()
) -> Done:
    make = Squares if before is None else lambda: Squares(before)
    return shards.run(
        "square", make, cutting.rows(ROWS, 3), Attempt(place), worker=worker, workers=workers, progress=silent
    )


def written(place: str) -> dict[str, bytes]:
    return {entry.path: store.read(store.join(place, entry.path)) for entry in store.listing(place)}


@pytest.mark.usefixtures("ray_session")
def test_the_workers_change_nothing(tmp_path: Path) -> None:
    places = [str(tmp_path / name) for name in ("one", "two", "GPU")]
    one, two = (squares(place, workers=workers) for workers, place in enumerate(places[:2], start=1))
    on_gpu = squares(places[2], worker=Worker(gpus=0.5))
    assert on_gpu.held.gpus == 1
    assert (on_gpu.files, on_gpu.counts) == (one.files, one.counts)
    assert written(places[0]) == written(places[2])
    assert one.counts == two.counts == {"rows": 20, "shards of 3": 6, "shards of 2": 1}
    assert sorted(one.files, key=lambda file: file.path) == sorted(two.files, key=lambda file: file.path)
    assert written(places[0]) == written(places[1])
    assert written(places[0])["squares/00006"] == b"[324, 361]"


@pytest.mark.usefixtures("ray_session")
def test_the_number_of_tasks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(tmp_path / name / build.PARTS) for name in ("seven", "two")]
    done = []
    for place, most in zip(places, (7, 2), strict=True):
        monkeypatch.setattr(shards, "MOST_TASKS", most)
        done.append(squares(place))
    assert done[0].counts == done[1].counts
    names = [{name for name in written(place) if name.endswith(".json")} for place in places]
    assert (names[0], len(names[0])) == (names[1], 7)
    assert {name: data for name, data in written(places[0]).items() if name.startswith("squares/")} == {
        name: data for name, data in written(places[1]).items() if name.startswith("squares/")
    }

    def refuse(number: int) -> None:
        if number == 4:
            raise UserError("4 is one too many")

    broken = str(tmp_path / "broken" / build.PARTS)
    with pytest.raises(UserError, match="^4 is one too many$"):
        squares(broken, refuse, workers=1)
    assert f"{build.RECEIPTS}/00000" in " ".join(written(broken))  # of the same task as the second, which failed


@pytest.mark.usefixtures("ray_session")
def test_a_shard_is_a_run_of_rows_and_progress_counts_them(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    shards.run(
        "square",
        Squares,
        cutting.rows(ROWS, 8),
        Attempt(str(tmp_path)),
        worker=Worker(),
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert [content[:4] for content in written(str(tmp_path)).values()] == [b"[0, ", b"[64,", b"[256"]
    assert [seen[0], seen[-1], len(seen)] == [("square", 0, 20), ("square", 20, 20), 4]


def test_no_rows_need_no_ray(tmp_path: Path) -> None:
    none = cutting.rows(ROWS.slice(0, 0), 3)
    done = shards.run("square", Squares, none, Attempt("x"), worker=Worker(cpus=999), progress=silent)
    assert done == Done([], {})


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (UserError("no such channel: 7"), UserError, "^no such channel: 7$"),
        (ValueError("seven\nis a line too many"), StageError, "^square: ValueError: seven$"),
        (
            FileNotFoundError(2, "No such file", "seven"),
            StageError,
            r"^FileNotFoundError: \[Errno 2\] No such file: 'seven'$",
        ),
        (StopIteration(), StageError, "^square: RuntimeError: the work on a shard raised StopIteration$"),
    ],
)
def test_errors_of_the_work(tmp_path: Path, error: Exception, expected: type[Exception], message: str) -> None:
    def fail(number: int) -> None:
        if number == 7:
            raise error

    with pytest.raises(expected, match=message) as caught:
        squares(str(tmp_path), fail)
    assert type(caught.value) is expected


@pytest.mark.usefixtures("ray_session")
def test_an_error_while_a_worker_starts(tmp_path: Path) -> None:
    def make() -> Squares:
        raise UserError("weights: missing")

    with pytest.raises(UserError, match=r"^weights: missing$"):
        shards.run("square", make, cutting.rows(ROWS, 3), Attempt(str(tmp_path)), worker=Worker(), progress=silent)


@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    flag, place = tmp_path / "killed once", str(tmp_path / "out")

    def die(number: int) -> None:
        if number == 10 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    done = squares(place, die)
    assert flag.exists()
    assert done.counts["rows"] == 20
    assert sorted(file.path for file in done.files) == [f"squares/{number:05d}" for number in range(7)]
    squares(str(tmp_path / "undisturbed"))
    assert written(place) == written(str(tmp_path / "undisturbed"))


@pytest.mark.usefixtures("ray_session")
def test_what_was_done_before_a_failure_is_not_done_again(root: str, tmp_path: Path) -> None:
    place, log = store.join(root, build.PARTS), tmp_path / "log"

    def fail(number: int) -> None:
        if number == 13:
            raise StageError("thirteen")

    def note(number: int) -> None:
        with log.open("a") as file:
            file.write(f"{number}\n")

    with pytest.raises(StageError, match="thirteen"):
        squares(place, fail, workers=1)
    running = b"ray::MapBatches(_in_task)"
    processes.wait_for(lambda: not processes.below_this_one(running))  # the next shard was on its way
    begun = [entry.path for entry in store.listing(place) if entry.path.startswith("receipts/0")]
    assert 1 <= len(begun) < 7
    done = squares(place, note)
    again = {int(line) // 3 for line in log.read_text().splitlines()}
    assert 4 in again, "thirteen's"
    assert again.isdisjoint(int(store.name(path).partition("-")[0]) for path in begun)
    assert done.counts == {"rows": 20, "shards of 3": 6, "shards of 2": 1}
    whole = squares(store.join(root, "elsewhere", build.PARTS))
    assert sorted(done.files, key=lambda file: file.path) == sorted(whole.files, key=lambda file: file.path)
    assert squares(place, fail).counts == done.counts  # nothing is left that could fail


@pytest.mark.usefixtures("ray_session")
def test_receipts_of_another_plan_are_nobodys(tmp_path: Path) -> None:
    place = store.join(str(tmp_path), build.PARTS)
    for size in (3, 4, 3):
        cut = cutting.rows(ROWS, size)
        done = shards.run("square", Squares, cut, Attempt(place), worker=Worker(), progress=silent)
        assert done.counts["rows"] == 20
        assert done.counts[f"shards of {size}"] == 20 // size


@pytest.mark.usefixtures("ray_session")
def test_a_shard_takes_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever limit Ray Data has for pipelines that stand still."""
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "execution_no_progress_timeout_s", 1)
    done = squares(str(tmp_path), lambda number: time.sleep(0.9))
    assert done.counts["rows"] == 20


@pytest.mark.usefixtures("ray_session")
def test_what_ray_data_says_is_one_line(tmp_path: Path) -> None:
    """Not all of its errors are RayErrors: here work that cannot travel."""
    lock = threading.Lock()
    with pytest.raises(StageError, match=r"^square: TypeError: ") as caught:
        squares(str(tmp_path), lambda number: lock.acquire())
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (Worker(cpus=3), r"^square needs 1 x \(3 CPU\); the cluster has 1 node of 2 CPU$"),
        (Worker(gpus=2), r"^square needs 1 x \(1 CPU, 2 GPU\); the cluster has 1 node of 2 CPU, 1 GPU$"),
        (
            Worker(memory_gb=10_000),
            r"^square needs 1 x \(1 CPU, 10000\.0 GiB memory\); the cluster has 1 node of 2 C",
        ),
    ],
)
def test_what_can_never_fit_is_refused(worker: Worker, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shards.run("square", Squares, cutting.rows(ROWS, 3), Attempt("x"), worker=worker, progress=silent)


@pytest.mark.parametrize(
    ("clips", "seconds", "size"),
    [
        (10, 20.0, 32),
        (5_000, 50_000.0, 64),
        (100_000, 1_000_000.0, 360),  # of ten seconds each: an hour
        (100_000, 100_000.0, 512),
        (100, 360_000.0, 1),  # of an hour each
        (64, 100_000.0, 2),
    ],
)
def test_a_shard_holds_an_hour_of_sound_at_most(clips: int, seconds: float, size: int) -> None:
    assert cutting.shard_size(clips, seconds) == size


def test_so_many_clips_are_an_hour_at_most() -> None:
    assert cutting.at_most(64, 1_000, 10_000.0) == 64
    assert cutting.at_most(64, 1_000, 1_800_000.0) == 2  # of half an hour each


@pytest.mark.usefixtures("ray_session")
def test_workers_must_see_what_the_driver_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here nobody wrote anything; where another process has committed the stage meanwhile, nothing is amiss."""
    worker = shards._ShardWorker("run", Squares, Attempt(str(tmp_path / build.PARTS)))
    with pytest.raises(
        Retryable, match=r" does not see what the driver wrote below .*; allowed: a folder that all nodes"
    ):
        _ = worker.work
    (tmp_path / build.MARKER).touch()
    assert isinstance(worker.work, Squares)
