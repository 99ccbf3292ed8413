"""The registry: released detectors as immutable versions, which of them is current, and who changed that when and why.

    REGISTRY/versions/v3/release.json   who released what, from where, how good it was; its creation claims the number
                         files/         all files of the DETECTOR
                         SHA256SUMS     of all of them
                         marker.json    as of any DETECTOR; written last, and without it there is no version
    REGISTRY/history/000007.json        what became current; the newest entry says what is (``store.ledger``)

A version is a DETECTOR's folder like any other, so that what was found once stays what it is whatever becomes current.
"""

import getpass
import os
import re
import socket
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.errors import Retryable, StageError, UserError, unknown
from ray_asd.stages.fleet import checks
from ray_asd.store import ledger

HISTORY, VERSIONS = "history", "versions"
RELEASE, FILES = "release.json", "files"
VERSION_NAME = re.compile(r"v([1-9][0-9]*)")
_READERS = 16


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)  # makes of each writer's words its own
    version: str
    who: str
    when: datetime = Field(default_factory=lambda: datetime.now(UTC))
    note: str = ""


class Release(_Record):
    """What a version is: the digest of its files, where they came from, how good it was and how it came about."""

    content: str
    source: str
    metrics: dict[str, Any] | None = None
    provenance: dict[str, Any]


class Change(_Record):
    """One entry of the history: ``version`` became current in the place of ``before``, and why that was allowed."""

    number: int
    action: Literal["release", "rollback"]
    before: str | None
    forced: bool = False  # although it was worse
    compared: dict[str, Any] | None = None  # with the one before; None: it was not


@dataclass(frozen=True)
class Version:
    """A number and what was released under it; where it cannot be used, ``problem`` says why.

    It may not be claimed yet: a folder alone is of a process that is about to win or lose the race for it.
    """

    name: str
    release: Release | None = None
    detector: Output | None = None
    problem: str | None = None
    is_claimed: bool = True


def whoever() -> str:
    """The user and host of this process, for who says no other name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name, in a container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def is_registry(uri: str) -> bool:
    """Whether a registry is there."""
    return store.is_folder(store.join(uri, VERSIONS))


def opened(uri: str) -> str:
    """``uri`` made absolute.

    Raises:
        UserError: there is no registry.
    """
    uri = store.absolute(uri)
    if not is_registry(uri):
        raise UserError(f"{uri} holds no registry (no {VERSIONS}/); allowed: what `release --to` was given")
    return uri


def folder_of(registry: str, name: str) -> str:
    """Of a version."""
    return store.join(registry, VERSIONS, name)


def numbered(registry: str) -> list[str]:
    """Names of all versions that were claimed, oldest first."""
    found = [name for name in store.folders(store.join(registry, VERSIONS)) if VERSION_NAME.fullmatch(name)]
    return sorted(found, key=lambda name: int(name[1:]))


def version(registry: str, name: str) -> Version:
    """What was released under a name, whose files are not looked at."""
    folder, release = folder_of(registry, name), None
    try:
        detector = build.find(folder)  # first: where a marker is, there was a record before
        release = _release(folder)
    except FileNotFoundError:
        return Version(name, problem=f"{store.join(folder, RELEASE)} is missing", is_claimed=detector is not None)
    except Retryable:
        raise
    except StageError as error:
        return Version(name, release, problem=str(error))
    return Version(name, release, detector, None if detector else _broken_off(registry, name))


def _release(folder: str) -> Release:
    place = store.join(folder, RELEASE)
    try:
        return Release.model_validate_json(store.read(place))
    except ValidationError as error:
        raise StageError(f"{place} is no release of this format: {_mistake(error)}") from error


def _broken_off(registry: str, name: str) -> str:
    return f"{store.join(folder_of(registry, name), build.MARKER)} is missing: the release of {name} was broken off"


def versions(registry: str) -> list[Version]:
    """All versions, oldest first."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: version(registry, name), numbered(registry)))


def history(registry: str) -> list[Change]:
    """Every change of what is current, oldest first."""
    return ledger.entries_as(Change, store.join(registry, HISTORY))


def newest(registry: str) -> Change | None:
    """The last change; None where nothing has become current yet."""
    folder = store.join(registry, HISTORY)
    number = ledger.newest(folder)
    return ledger.entry_as(Change, folder, number) if number else None


def _mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    return "".join(f"{part}: " for part in mistake["loc"]) + mistake["msg"]


def switch(registry: str, change: Change) -> bool:
    """Whether ``change`` became the newest; not where another one came first."""
    return ledger.append(store.join(registry, HISTORY), change.number, change.model_dump(mode="json"))


def line_of_descent(changes: Sequence[Change]) -> list[str]:
    """What rollback goes back along: versions that became current and were not rolled back, the current one last."""
    line: list[str] = []
    for change in changes:
        if change.action == "rollback" and change.version in line:
            del line[line.index(change.version) + 1 :]
        else:
            line = [*(name for name in line if name != change.version), change.version]
    return line


def rollback(registry: str, to: str | None, who: str, note: str) -> Change:
    """Make the version that was current before, or ``to``, current again, once it is known to be whole.

    Raises:
        UserError: there is no such version.
        StageError: it is damaged, or what is current has changed meanwhile.
    """
    changes = history(registry)
    line = line_of_descent(changes)
    if not line:
        raise UserError(f"{registry}: no version has ever been current; allowed after a first release")
    target = to or (line[-2] if len(line) > 1 else None)
    if target is None:
        raise UserError(f"{registry}: nothing was current before {line[-1]}; allowed: --to one of {_names(registry)}")
    if target == line[-1]:
        raise UserError(f"--to {target}: that is current; allowed: {_names(registry, target)}")
    checks.self_test(found(registry, target))
    change = Change(version=target, who=who, note=note, number=len(changes) + 1, action="rollback", before=line[-1])
    if not switch(registry, change):
        raise StageError(f"{registry}: nothing was changed: {told(newest(registry))} meanwhile")
    return change


def told(change: Change | None) -> str:
    """A change in few words."""
    return f"{change.version} became current ({change.action} by {change.who})" if change else "nothing is current"


def found(registry: str, name: str) -> Output:
    """The DETECTOR of a version, each of whose files is what was released.

    Raises:
        UserError: there is no such version.
        StageError: a file is missing or damaged.
    """
    known = numbered(registry)
    if name not in known:
        raise unknown(f"version of {registry}", name, known or ["none: it has no versions"])
    detector = build.find(folder_of(registry, name))
    if detector is None:
        raise StageError(_broken_off(registry, name))
    checks.check_version(detector)
    return detector


def current(registry: str) -> Output:
    """The DETECTOR that is current.

    Raises:
        UserError: none is.
        StageError: it is damaged.
    """
    last = newest(registry)
    if last is None:
        raise UserError(f"{registry}: no version is current; allowed: {registry}@ and one of {_names(registry)}")
    return found(registry, last.version)


def names_version(uri: str) -> bool:
    """Whether that is a registry, or a version of one."""
    return is_registry(parts(store.absolute(uri))[0])


def parts(uri: str) -> tuple[str, str]:
    """The registry and the version that ``uri`` may name; without one, itself and nothing."""
    folder = store.parent(uri)
    place, _, name = uri.rpartition("@")
    if store.name(folder) == VERSIONS:
        place, name = store.parent(folder), store.name(uri)
    return (place, name) if place and VERSION_NAME.fullmatch(name) else (uri, "")


def detector(uri: str) -> Output:
    """The DETECTOR that a user named: an output of enroll, ``REGISTRY`` for its current version, or ``REGISTRY@v3``.

    Raises:
        UserError: there is none.
        StageError: a released version is damaged.
    """
    uri = store.absolute(uri)
    place, name = parts(uri)
    if name and is_registry(place):
        return found(place, name)
    if build.find(uri):
        return build.resolve(uri, "enroll")
    if is_registry(uri):
        return current(uri)
    allowed = "an output of enroll, a registry for its current version, or REGISTRY@v1"
    raise UserError(f"{uri} holds no detector (no {build.MARKER}); allowed: {allowed}")


def _names(registry: str, but: str = "") -> str:
    return ", ".join(name for name in numbered(registry) if name != but) or "none"
