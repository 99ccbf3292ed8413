"""An append-only history: numbered JSON entries in a folder, the next of which belongs to whoever creates it first.

What its newest entry says is so now. To change that, read it, decide, and append with the number behind it: a
conditional write lets one of any number of processes do so, and the others learn that what they decided on has changed.
So state and history are one, and no process can change the one without the other.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ray_asd.errors import StageError
from ray_asd.store.uri import create, files, join, read

_READERS = 16
Model = TypeVar("Model", bound=BaseModel)


def path(folder: str, number: int) -> str:
    """Of an entry, counted from 1."""
    return join(folder, f"{number:06d}.json")


def newest(folder: str) -> int:
    """How many entries there are."""
    return max((int(name[:-5]) for name in files(folder) if name[:-5].isdigit() and name.endswith(".json")), default=0)


def entry(folder: str, number: int) -> dict[str, Any]:
    """What an entry says.

    Raises:
        StageError: it is no JSON object, or is not there.
    """
    place = path(folder, number)
    try:
        said = json.loads(read(place))
    except FileNotFoundError as error:
        raise StageError(f"{place} is missing") from error
    except ValueError as error:  # JSON's and Unicode's
        raise StageError(f"{place} is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise StageError(f"{place} holds no entry but {said!r}")
    return said


def entries(folder: str) -> list[dict[str, Any]]:
    """What all entries say, oldest first."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda number: entry(folder, number), range(1, newest(folder) + 1)))


def entry_as(model: type[Model], folder: str, number: int) -> Model:
    """An entry, in the format that it was written in.

    Raises:
        StageError: it is not there, or in another format.
    """
    return _as(model, entry(folder, number), path(folder, number))


def entries_as(model: type[Model], folder: str) -> list[Model]:
    """All entries in their format, oldest first."""
    return [_as(model, said, path(folder, number)) for number, said in enumerate(entries(folder), start=1)]


def _as(model: type[Model], said: dict[str, Any], place: str) -> Model:
    try:
        return model.model_validate(said)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in mistake["loc"])
        raise StageError(f"{place} is no entry of this format: {where}{mistake['msg']}") from error


def append(folder: str, number: int, said: Mapping[str, Any]) -> bool:
    """Whether ``said``, which must hold something unique to the caller, became the entry of this number."""
    return create(path(folder, number), json.dumps(said, indent=1).encode())
