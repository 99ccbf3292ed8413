"""What an earlier ingest below the same root found out of the recordings of a source, so that only new ones are read.

Of each recording that is what its bytes say, whatever settings it was ingested with: the rest is told by its name.
"""

from ray_asd import build, store, tables
from ray_asd.build import Attempt, Marker, archive
from ray_asd.data import recordings
from ray_asd.data.source import Source
from ray_asd.data.spooled import Spooled
from ray_asd.errors import Retryable, StageError
from ray_asd.tables import Folder

_DECODER = "soundfile"  # among the versions of a marker
_READERS = 16


def inspected(attempt: Attempt, source: Source, code_version: int) -> Spooled:
    """INSPECTED of the newest finished ingest of ``source`` by the same code; empty where there is none."""
    for output in archive.newest_first(store.parent(store.parent(attempt.uri)), source.name):
        if not _is_alike(output.marker, source, code_version):
            continue
        found = Spooled(tables.INSPECTED)
        paths = (file.path for file in output.files(Folder.INSPECTED))
        try:
            for part in recordings.ahead(output.part, paths, _READERS, _READERS):
                found.write(tables.conform(part, tables.INSPECTED))
            return found
        except Retryable:
            raise
        except (FileNotFoundError, StageError):  # being removed, or damaged: then nothing is known from there
            continue
    return Spooled(tables.INSPECTED)


def _is_alike(marker: Marker, source: Source, code_version: int) -> bool:
    decoders = marker.versions.get(_DECODER), build.versions().get(_DECODER)
    return (marker.code_version, marker.config["source"]) == (code_version, source.uri) and len(set(decoders)) == 1
