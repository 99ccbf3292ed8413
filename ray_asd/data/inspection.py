"""What the bytes of a recording were found to be: known again as long as a listing says the same of its file."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.data import audio
from ray_asd.data.headers import BadAudio

FACTS = [name for name in tables.INSPECTED.names if name not in ("uri", "version")]


def inspect(recording: bytes) -> dict[str, Any]:
    """The ``FACTS`` of a recording, by decoding it."""
    facts = dict.fromkeys(FACTS) | {"size_bytes": len(recording), "content_hash": audio.content_hash(recording)}
    try:
        info = audio.inspect(recording)
    except BadAudio as error:
        return facts | {"reason": error.reason, "detail": error.detail}
    return facts | {"sample_rate": info.sample_rate, "channels": info.channels, "num_samples": info.num_samples}


def with_known(listed: pa.Table, inspected: pa.Table) -> pa.Table:
    """``listed``, with ``uri``, ``version`` and ``size``, and beside it the ``FACTS`` that INSPECTED rows tell of the
    same file, unchanged; nulls where there is none."""
    places = pc.index_in(listed["uri"], inspected["uri"].combine_chunks())
    found = inspected.select(["version", "size_bytes"]).take(places)
    unchanged = pc.and_(pc.equal(found["version"], listed["version"]), pc.equal(found["size_bytes"], listed["size"]))
    known = inspected.take(pc.if_else(unchanged, places, None))
    for name in FACTS:
        listed = listed.append_column(name, known[name])
    return listed
