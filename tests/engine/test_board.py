import threading
import time
from concurrent.futures import Future

import pytest

import processes
from ray_asd.build import File, Outcome
from ray_asd.engine.board import Board, watch
from ray_asd.errors import Unplaced

pytestmark = pytest.mark.usefixtures("ray_session")


def point(step: int) -> dict[str, float]:
    return {"step": step, "loss": 2.0 / step, "accuracy": 0.5, "learning_rate": 0.1}


def test_a_writer_learns_whether_to_stop() -> None:
    board = Board()
    assert board.read() is None
    board.begin()
    assert board.read() == {}
    assert board.write(point(1)) is False
    assert board.read() == point(1)
    board.stop()
    assert board.write(point(2)) is True


def test_giving_up_has_a_reason() -> None:
    board = Board()
    assert board.given_up() is None
    board.give_up("the loss is nan")
    assert board.given_up() == "the loss is nan"


def test_the_outcome_comes_back_whole_and_is_taken_down_with_all_else() -> None:
    board, other = Board(), Board()
    outcome = Outcome([File(path="weights", size=3, sha256="0" * 64, rows=2)], {"steps": 4}, {"loss": 0.5, "of": ["a"]})
    assert board.ended() is None
    board.end(outcome)
    board.begin()
    other.stop()
    assert board.ended() == outcome
    board.wipe()
    assert (board.read(), board.ended()) == (None, outcome)
    board.close()
    assert board.ended() is None
    assert other.write(point(1)) is True, "each training has a board of its own"


def test_a_watcher_shows_each_point_once_and_the_last_one_always() -> None:
    board, training, shown = Board(), Future[None](), []

    def progress(what: str, done: int, total: int) -> None:
        shown.append((what, done, total))
        if done == 1:
            board.write(point(4))
            threading.Timer(0.1, training.set_result, [None]).start()

    board.write(point(1))
    watch(board, training, "train", 4, progress, look=never, begin=lambda: None)
    assert shown == [("train  loss 2.000  accuracy 0.500", 1, 4), ("train  loss 0.500  accuracy 0.500", 4, 4)]


def test_somebody_looks_until_the_workers_have_their_place() -> None:
    """Loading what they train takes a while, and is no waiting."""
    board, training, told = Board(), Future[None](), list[str]()

    def look() -> None:
        told.append("look")
        if len(told) == 2:
            board.begin()
            threading.Timer(1.5, training.set_result, [None]).start()

    watch(board, training, "train", 4, never, look=look, begin=lambda: told.append("begin"))
    assert told[:3] == ["look", "look", "begin"]
    assert set(told[2:]) == {"begin"}


def test_who_gives_up_looking_leaves_and_waits_until_that_is_noticed() -> None:
    board, training = Board(), Future[None]()

    def train() -> None:
        processes.wait_for(board.is_left)
        time.sleep(0.5)
        training.set_result(None)

    def look() -> None:
        raise Unplaced("waited 5 minutes")

    threading.Thread(target=train).start()
    with pytest.raises(Unplaced, match=r"^waited 5 minutes$"):
        watch(board, training, "train", 4, never, look=look, begin=lambda: None)
    assert training.done()


def never(*arguments: object) -> None:
    raise AssertionError(arguments)
