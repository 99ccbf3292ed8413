"""A local file system that fails on purpose, by an audit hook at the call that would meet the error."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Fault:
    """Raised by the next ``times`` of ``event`` on paths that hold ``part``."""

    event: str
    part: str
    number: int
    times: int
    first: Callable[[], object]


_faults: list[Fault] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for fault in _faults:
        if event == fault.event and fault.times and fault.part in str(arguments[0]):
            fault.times -= 1
            fault.first()
            raise OSError(fault.number, os.strerror(fault.number), arguments[0])


sys.addaudithook(_hook)


@contextmanager
def failing(
    event: str, part: object, number: int, times: int = 1, first: Callable[[], object] = lambda: None
) -> Iterator[Fault]:
    """The kernel seems to answer with error ``number`` where ``event`` meets a path that holds ``part``; which
    ``first`` happens to."""
    fault = Fault(event, str(part), number, times, first)
    _faults.append(fault)
    try:
        yield fault
    finally:
        _faults.remove(fault)
