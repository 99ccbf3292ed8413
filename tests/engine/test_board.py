import threading
from concurrent.futures import Future

import pytest
import ray

from ray_asd.engine.board import put_up, watch

pytestmark = pytest.mark.usefixtures("ray_session")


def point(step: int) -> dict[str, float]:
    return {"step": step, "loss": 2.0 / step, "accuracy": 0.5, "learning_rate": 0.1}


def test_a_writer_learns_whether_to_stop() -> None:
    board = put_up()
    assert ray.get(board.read.remote()) == {}
    assert ray.get(board.write.remote(point(1))) is False
    assert ray.get(board.read.remote()) == point(1)
    ray.get(board.stop.remote())
    assert ray.get(board.write.remote(point(2))) is True


def test_giving_up_has_a_reason() -> None:
    board = put_up()
    assert ray.get(board.given_up.remote()) is None
    ray.get(board.give_up.remote("the loss is nan"))
    assert ray.get(board.given_up.remote()) == "the loss is nan"


def test_a_watcher_shows_each_point_once_and_the_last_one_always() -> None:
    board, training, shown = put_up(), Future[None](), []

    def progress(what: str, done: int, total: int) -> None:
        shown.append((what, done, total))
        if done == 1:
            ray.get(board.write.remote(point(4)))
            threading.Timer(0.1, training.set_result, [None]).start()

    ray.get(board.write.remote(point(1)))
    watch(board, training, "train", 4, progress, lambda: None)
    assert shown == [("train  loss 2.000  accuracy 0.500", 1, 4), ("train  loss 0.500  accuracy 0.500", 4, 4)]


def test_as_long_as_nothing_is_shown_somebody_looks_why() -> None:
    training, looks = Future[None](), []
    threading.Timer(0.1, training.set_result, [None]).start()
    watch(put_up(), training, "train", 4, lambda what, done, total: None, lambda: looks.append(training.done()))
    assert looks
