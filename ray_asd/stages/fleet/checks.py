"""Whether a detector is what it was when it was made: every file's checksum, its format, its self-test."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ray_asd import store
from ray_asd.build import MARKER, Output
from ray_asd.errors import StageError
from ray_asd.stages.detection import detector as detectors

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
_READERS = 16


def of_marker(detector: Output) -> dict[str, str]:
    """The sha256 of each file that its marker lists, by path below its folder."""
    return {store.join(detector.marker.attempt, file.path): file.sha256 for file in detector.marker.files}


def listed(sums: Mapping[str, str]) -> bytes:
    """The content of ``SUMS``."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()


def read(folder: str) -> dict[str, str]:
    """What ``SUMS`` in ``folder`` says: the sha256 of each file by its path.

    Raises:
        StageError: it is not there, or is no such list.
    """
    place = store.join(folder, SUMS)
    try:
        lines = store.read(place).decode().splitlines()
    except FileNotFoundError as error:
        raise StageError(f"{place} is missing") from error
    except UnicodeDecodeError as error:
        raise StageError(f"{place} is no list of checksums") from error
    pairs = [line.split("  ", 1) for line in lines]
    if not all(len(pair) == 2 and len(pair[0]) == 64 for pair in pairs):
        raise StageError(f"{place} is no list of checksums")
    return {path: digest for digest, path in pairs}


def check_files(folder: str, sums: Mapping[str, str]) -> None:
    """Return when each file below ``folder`` has its sha256.

    Raises:
        StageError: one has not, or is missing; the first of them is named.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        for problem in pool.map(lambda path: _wrong(store.join(folder, path), sums[path]), sorted(sums)):
            if problem:
                raise StageError(problem)


def _wrong(uri: str, digest: str) -> str | None:
    try:
        found = store.sha256(uri)
    except FileNotFoundError:
        return f"{uri} is missing"
    return None if found == digest else f"{uri} is damaged: its sha256 is {found[:12]}, its record says {digest[:12]}"


def check_version(version: Output) -> None:
    """Return when every file of a released version is what was released, its marker among them.

    Raises:
        StageError: one is not, or is missing.
        UserError: its format is another one.
    """
    sums = read(version.uri)
    check_files(version.uri, {MARKER: sums.get(MARKER, "")})  # before it is believed which files there are
    unlisted = sorted(set(of_marker(version)) - set(sums))
    if unlisted:
        raise StageError(f"{store.join(version.uri, SUMS)} is damaged: it does not list {unlisted[0]}")
    check_files(version.uri, sums)
    detectors.read(version)


def self_test(detector: Output) -> None:
    """Return when its banks give the clips of its self-test their scores.

    Raises:
        StageError: they do not.
        UserError: its format is another one.
    """
    from ray_asd.stages.detection.bank import Banks

    Banks(detector, detectors.read(detector))
