"""CSV files without a header, one line per clip, whose first cell is its file name."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ray_asd import store
from ray_asd.errors import UserError

Value = TypeVar("Value")


def lines(uri: str) -> Iterator[tuple[list[str], int]]:
    """Cells and line number of each line that is not empty.

    Raises:
        UserError: nothing is there, or no CSV text.
    """
    try:
        reader = csv.reader(io.StringIO(store.read(uri).decode("utf-8-sig"), newline=""))
        for cells in reader:
            if cells:
                yield [cell.strip() for cell in cells], reader.line_num
    except FileNotFoundError as error:
        raise UserError(f"{uri} is missing") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{uri} is not a CSV text file: {error}") from error


def values(uri: str, convert: Callable[[str], Value]) -> dict[str, Value]:
    """The value of each clip, one in a line.

    Raises:
        UserError: ``convert`` raises ValueError, a line holds more or less than one value, or a clip has two lines.
    """
    found, names = dict[str, Value](), list[str]()
    for cells, line in lines(uri):
        if len(cells) != 2:
            raise UserError(f"{uri} line {line}: {len(cells)} values; a file name and a value are needed")
        try:
            found[cells[0]] = convert(cells[1])
        except ValueError as error:
            raise UserError(f"{uri} line {line}: {error}") from error
        names.append(cells[0])
    refuse_duplicates(names, uri)
    return found


def flag(text: str) -> int:
    """0 or 1.

    Raises:
        ValueError: neither.
    """
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is not 0 or 1")
    return int(text)


def refuse_duplicates(names: Iterable[str], where: str) -> None:
    """Each name once.

    Raises:
        UserError: one occurs twice.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{where}: {len(repeated)} file names occur more than once, the first is {repeated[0]!r}")


def require_same(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """The clips of the ground truth, all of them and no other.

    Raises:
        UserError: one is missing, or one too many.
    """
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        raise UserError(f"{where}: {len(missing)} clips of the ground truth are missing, the first is {missing[0]!r}")
    if extra:
        raise UserError(f"{where}: {len(extra)} clips are not in the ground truth, the first is {extra[0]!r}")
