"""The recordings that CLIPS tell of: where their bytes are, checked against their digest, and heard as waveforms."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pyarrow as pa

from ray_asd import store, tables
from ray_asd.data import packs, zips
from ray_asd.data.audio import BadAudio, NoChannel, Waveform, content_hash, decode
from ray_asd.errors import StageError

AHEAD = 4  # waveforms that wait per decoding thread

Clip = Mapping[str, Any]
"""A CLIPS row."""
Channel = int | Literal["mean"]
_LOST = {"missing": "recording_gone", "unreadable": "recording_unreadable"}  # reasons of UNSCORED by those of REJECTS
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Changed(StageError):
    """A recording whose content is not what was ingested."""


@dataclass(frozen=True, slots=True)
class Unheard:
    """Why a clip has no waveform any more; ``reason`` is a key of ``reasons.UNSCORED``."""

    reason: str
    detail: str


def at(uri: str) -> bytes:
    """The content of a file, an object, or a member of an archive.

    Raises:
        FileNotFoundError: there is none.
        OSError: it may not be read, or is no file.
        BadMember: the archive's member cannot be had.
    """
    return zips.read(uri) if zips.is_member(uri) else store.read(uri)


def is_there(uri: str) -> bool:
    """Whether ``at`` would find something that it may read; of the content no more than a byte is."""
    try:
        if zips.is_member(uri):
            zips.stat_member(uri)
        else:
            with store.open_read(uri) as file:
                file.read(1)
    except zips.BadMember:
        return True
    except OSError:
        return False
    return True


def read(clip: Clip) -> bytes:
    """The recording of a CLIPS row, from its pack where it has one.

    Raises:
        BadAudio: it is not there any more, or may not be read.
        Changed: its content is not what was ingested.
    """
    uri, pack = clip["uri"], clip.get("pack")
    try:
        recording = packs.read(pack, clip["pack_row"]) if pack else at(uri)
    except FileNotFoundError as error:
        raise BadAudio("missing", pack or uri) from error
    except OSError as error:
        raise BadAudio("unreadable", str(error)) from error
    except zips.BadMember as error:
        raise BadAudio(error.reason, f"{uri}: {error.detail}") from error
    if content_hash(recording) != clip["content_hash"]:
        raise Changed(f"{pack or uri}: the recording has changed since it was ingested; ingest it again")
    return recording


def waveform(clip: Clip, channel: Channel) -> Waveform:
    """One channel of a CLIPS row's recording, float32 [T] at 16 kHz.

    Raises:
        BadAudio, Changed: as ``read``; or it cannot be decoded; the detail names it.
        NoChannel: it has no such channel.
    """
    recording = read(clip)
    try:
        return decode(recording, channel)
    except BadAudio as error:
        raise BadAudio(error.reason, f"{clip['uri']}: {error.detail}") from error


def waveforms(clips: Iterable[Clip], channel: Channel, threads: int = 1) -> Iterator[Waveform]:
    """``waveform`` of each of ``clips`` in order, read and decoded by ``threads`` ahead of whoever takes them."""
    return ahead(lambda clip: waveform(clip, channel), clips, threads, AHEAD * threads)


def heard(clips: Iterable[Clip], channel: Channel, threads: int = 1) -> Iterator[Waveform | Unheard]:
    """As ``waveforms``, with the reason in place of what a clip's own recording no longer gives."""
    return ahead(lambda clip: _heard(clip, channel), clips, threads, AHEAD * threads)


def no_sound(clip: Clip, channel: Channel) -> Unheard | None:
    """Why that channel of a CLIPS row cannot be heard, as far as the row tells."""
    if channel == "mean":
        return None
    channels = clip.get("channels")
    if channels is not None and channel >= channels:
        return Unheard("no_channel", f"{clip['uri']}: {NoChannel(channel, channels)}")
    if channel in (clip.get("dead_channels") or ()):
        return Unheard("dead_channel", f"{clip['uri']}: channel {channel} of {channels} is constant throughout")
    return None


def _heard(clip: Clip, channel: Channel) -> Waveform | Unheard:
    unheard = no_sound(clip, channel)
    if unheard:
        return unheard
    try:
        return waveform(clip, channel)
    except BadAudio as error:
        return Unheard(_LOST.get(error.reason, "recording_damaged"), str(error))
    except Changed as error:
        return Unheard("recording_changed", str(error))
    except NoChannel as error:
        return Unheard("no_channel", f"{clip['uri']}: {error}")


def unscored(clips: pa.Table, unheard: dict[int, Unheard]) -> pa.Table:
    """UNSCORED rows of those of ``clips`` (by position) that could not be heard or compared."""
    positions = sorted(unheard)
    rows = clips.select(["clip_id", "machine_type", "section"]).take(pa.array(positions, pa.int64())).to_pylist()
    found = [
        row | {"reason": unheard[position].reason, "detail": unheard[position].detail}
        for row, position in zip(rows, positions, strict=True)
    ]
    return pa.Table.from_pylist(found, schema=tables.UNSCORED)


def ahead(
    take: Callable[[_Item], _Answer],
    items: Iterable[_Item],
    threads: int,
    most: int,
    size: Callable[[_Item], int] = lambda item: 1,
) -> Iterator[_Answer]:
    """``take`` of each of ``items`` in order, by ``threads`` ahead of whoever asks for the answers: of those that wait
    the items come to at most ``most`` by ``size``, but for the last one."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, Future[_Answer]]] = deque()
    held = 0
    try:
        for item in items:
            waiting.append((size(item), pool.submit(take, item)))
            held += waiting[-1][0]
            while held > most:
                held -= waiting[0][0]
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)
