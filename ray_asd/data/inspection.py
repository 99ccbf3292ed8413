"""What the bytes of a recording were found to be: known again as long as a listing says the same of its file."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.data import audio
from ray_asd.data.headers import BadAudio
from ray_asd.data.spooled import Spooled, joined

FACTS = [name for name in tables.INSPECTED.names if name not in ("uri", "version")]
_MEASURED = ("sample_rate", "channels", "num_samples", "level", "clipped")


def inspect(recording: bytes) -> dict[str, Any]:
    """The ``FACTS`` of a recording, by decoding it."""
    facts = dict.fromkeys(FACTS) | {"size_bytes": len(recording), "content_hash": audio.content_hash(recording)}
    try:
        info = audio.inspect(recording)
    except BadAudio as error:
        return facts | {"reason": error.reason, "detail": error.detail}
    heard = {"dead_channels": list(info.dead_channels) or None, "streamed": info.streamed or None}
    return facts | {name: getattr(info, name) for name in _MEASURED} | heard


def with_known(listed: Spooled, inspected: Spooled) -> Spooled:
    """``listed``, with ``uri``, ``version`` and ``size`` and in order of clip_id, and beside it the ``FACTS`` that
    INSPECTED rows tell of the same file, unchanged; nulls where there is none."""
    schema = pa.schema([*listed.schema, *(pa.field(name, tables.INSPECTED.field(name).type) for name in FACTS)])
    found = Spooled(schema)
    for table, known in joined(listed.in_order("uri"), inspected.in_order("uri"), "uri"):
        unchanged = pc.and_(pc.equal(known["version"], table["version"]), pc.equal(known["size_bytes"], table["size"]))
        for name in FACTS:
            table = table.append_column(name, pc.if_else(unchanged, known[name], pa.scalar(None, known[name].type)))
        found.write(table)
    return found.in_order("clip_id")
