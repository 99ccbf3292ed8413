"""The recordings that CLIPS tell of: where their bytes are, checked against their digest, and heard as waveforms."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from ray_asd import store
from ray_asd.data import packs, zips
from ray_asd.data.audio import BadAudio, Waveform, content_hash, decode
from ray_asd.errors import StageError

AHEAD = 4  # waveforms that wait per decoding thread


def at(uri: str) -> bytes:
    """The content of a file, an object, or a member of an archive.

    Raises:
        FileNotFoundError: there is none.
        BadMember: the archive's member cannot be had.
    """
    return zips.read(uri) if zips.is_member(uri) else store.read(uri)


def read(clip: Mapping[str, Any]) -> bytes:
    """The recording of a CLIPS row, from its pack where it has one.

    Raises:
        BadAudio: it is not there any more.
        StageError: its content is not what was ingested.
    """
    uri, pack = clip["uri"], clip.get("pack")
    try:
        recording = packs.read(pack, clip["pack_row"]) if pack else at(uri)
    except FileNotFoundError as error:
        raise BadAudio("missing", pack or uri) from error
    except zips.BadMember as error:
        raise BadAudio(error.reason, f"{uri}: {error.detail}") from error
    if content_hash(recording) != clip["content_hash"]:
        raise StageError(f"{pack or uri}: the recording has changed since it was ingested; ingest it again")
    return recording


def waveform(clip: Mapping[str, Any], channel: int | Literal["mean"]) -> Waveform:
    """One channel of a CLIPS row's recording, float32 [T] at 16 kHz.

    Raises:
        BadAudio, StageError: as ``read``; or it cannot be decoded; the detail names it.
        UserError: it has no such channel.
    """
    recording = read(clip)
    try:
        return decode(recording, channel)
    except BadAudio as error:
        raise BadAudio(error.reason, f"{clip['uri']}: {error.detail}") from error


def waveforms(
    clips: Iterable[Mapping[str, Any]], channel: int | Literal["mean"], threads: int = 1
) -> Iterator[Waveform]:
    """``waveform`` of each of ``clips`` in order, read and decoded by ``threads`` ahead of whoever takes them."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Waveform]] = deque()
    try:
        for clip in clips:
            waiting.append(pool.submit(waveform, clip, channel))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
