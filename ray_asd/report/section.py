"""What a page about a run is made of: sections that answer one question each and name the files they were read from."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from ray_asd.report.table import Table, code, markdown, plain

Records = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Chart:
    """A drawing and what stands above it."""

    title: str
    drawing: Markup


@dataclass(frozen=True)
class Sound:
    """A recording as the page shows it; images and audio are data URIs, None where there are none.

    ``mark`` is what of the image to look at: left, top, width and height in percent of it.
    """

    clip_id: str
    uri: str
    spectrogram: str | None
    audio: str | None
    missing: str | None  # why there is neither
    heading: str  # what it is: the clip itself, or its neighbour at a distance
    mark: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Suspect:
    """One of the most anomalous clips: facts by name, and the recordings to look at and listen to."""

    rank: int
    facts: Mapping[str, str]
    sounds: Sequence[Sound]


@dataclass(frozen=True)
class Section:
    """One question: the answer in words, figures, and where they come from.

    ``sources`` are the files or markers it was read from; ``files`` are CSV files beside the page, by name, that hold
    the same figures unrounded. ``legend`` pairs the class of a mark with what it stands for.
    """

    anchor: str
    title: str
    lead: str
    sources: Sequence[str]
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    legend: Sequence[tuple[str, str]] = ()
    files: Mapping[str, Records] = field(default_factory=dict)
    suspects: Sequence[Suspect] = ()


def csv_of(records: Records) -> bytes:
    """Records of the same keys as a CSV file."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return text.getvalue().encode()


def markdown_of(section: Section, folder: str) -> str:
    """The section as Markdown; its CSV files lie in ``folder``."""
    parts = [f"## {section.title}\n\n{plain(section.lead)}\n"]
    parts += [f"**{table.title}**\n\n{markdown(table)}" for table in section.tables]
    parts += [_told(suspect) for suspect in section.suspects]
    lines = [f"- from {code(uri)}" for uri in section.sources]
    lines += [f"- figures: [{name}]({folder}/{name})" for name in section.files]
    return "\n".join([*parts, *lines, ""])


def _told(suspect: Suspect) -> str:
    facts = "; ".join(f"{name}: {plain(value)}" for name, value in suspect.facts.items())
    sounds = [f"   - {sound.heading}: {code(sound.uri or sound.clip_id)}" for sound in suspect.sounds]
    return "\n".join([f"{suspect.rank}. {facts}", *sounds, ""])
