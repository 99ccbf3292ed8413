"""How data sets name their recordings: from a path to what it says of the clip.

A path that fits no form of its layout (``years.LAYOUTS``) is no clip. Paths are POSIX and relative to the data set's
source; audio means ``.wav`` or ``.flac`` in any case.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import unquote

from ray_asd.data.years import FORMS, LAYOUTS
from ray_asd.errors import UserError, unknown
from ray_asd.tables import SPLITS

SIDECAR = re.compile(
    r"(?i)(?:.*/)?(?:attributes_\d+(?:_(?:train|test)_correspondence)?\.csv|fleet\.json"
    r"|(?:readme|licen[cs]e|changelog)(?:\.\w+)?)"
)
ATTRIBUTES = re.compile(r"(?:.*/)?([^/]+)/attributes_\d+\.csv")
NO_ATTRIBUTE = "noAttribute"
ONLY_SECTION = "00"  # of machines that have just one
HEALTHY_SPLITS = ("train", "calibration")
_EMPTY_PARTS = re.compile("^/+|(?<=/)/+")
_IN_NAME = re.compile(r"section_\d{2}_.*?_\d{4,}(?:_(?P<attributes>[^/]*?))?(?i:\.(?:wav|flac))?", re.ASCII)
ENDINGS = (".wav", ".flac")
_OTHER_ENDINGS = (".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".mp3", ".m4a", ".ogg", ".opus", ".aac", ".wma")


@dataclass(frozen=True, slots=True)
class ParsedClip:
    """What a name or a CSV row says of one recording; a null means unknown."""

    machine_type: str
    section: str
    machine_id: str | None
    domain: str | None
    split: str
    label: str | None
    attributes: dict[str, str] = field(default_factory=dict)
    recorded_at: datetime | None = None  # UTC


def collapsed(path: str) -> str:
    """``path`` as a file system would read it: keys of an object store may have empty parts, which stay in clip_ids."""
    return _EMPTY_PARTS.sub("", path)


def is_audio(path: str) -> bool:
    """Whether the name promises a recording."""
    return path.lower().endswith(ENDINGS)


def is_other_audio(path: str) -> bool:
    """Whether it promises one by an ending that none of the data sets has."""
    return path.lower().endswith(_OTHER_ENDINGS)


def is_sidecar(path: str) -> bool:
    """Whether ``path`` belongs to a data set without being a clip: attribute CSVs, ``fleet.json``, a readme."""
    return not is_audio(path) and SIDECAR.fullmatch(path) is not None


def attributes_of(path: str) -> str | None:
    """The machine type whose attribute CSV ``path`` is (``fan/attributes_00.csv``), or None for any other file."""
    found = None if is_audio(path) else ATTRIBUTES.fullmatch(path)
    return found[1] if found else None


def parse(
    layout: str,
    path: str,
    attributes: Mapping[str, str] | None = None,
    machine_type: str | None = None,
    split: str | None = None,
) -> ParsedClip | None:
    """The clip at ``path``, relative to the source; None when its name does not follow ``layout``.

    ``attributes`` from an attribute CSV count before those in the name. ``machine_type`` and ``split`` stand in where
    the layout's names do not say them; without a split MIMII's normal clips are for training, its anomalies for the
    test. A clip for training that its folder calls abnormal is None too.

    Raises:
        UserError: no such layout or split, or the path lacks a machine type or split and none is given.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    matches = (FORMS[form].fullmatch(path) for form in LAYOUTS[layout].forms)
    found = next((match.groupdict() for match in matches if match), None)
    if found is None:
        return None
    label = "anomaly" if found.get("label") == "abnormal" else found.get("label")
    split = found.get("split") or split
    if not split and LAYOUTS[layout].holds_out:
        split = "test" if label == "anomaly" else "train"
    split = checked_split(split, path)
    machine_type = found.get("machine_type") or machine_type
    if not machine_type:
        raise UserError(f"{path}: layout {layout} does not name the machine type; allowed: any name, given beside it")
    if split in HEALTHY_SPLITS:
        if label == "anomaly":
            return None
        label = "normal"
    if attributes is None:
        attributes = _tail(found.get("attributes") or "")
        if LAYOUTS[layout].names_attributes:
            attributes |= {name[5:]: text for name, text in found.items() if text and name.startswith("attr_")}
    section = found.get("section") or ONLY_SECTION
    machine_id, domain = found.get("machine_id"), found.get("domain")
    return ParsedClip(machine_type, section, machine_id, domain, split, label, dict(attributes))


def in_utc(instant: datetime) -> datetime:
    """``instant``, which is in UTC unless it states an offset.

    Raises:
        OverflowError: it lies before the first year or after the last.
    """
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def attributes_in(name: str) -> dict[str, str]:
    """The attributes that the end of a recording's name tells, such as ``section_00_source_test_normal_0001_vel_6``."""
    found = _IN_NAME.fullmatch(name)
    return _tail(found["attributes"] or "") if found else {}


def held_out(layout: str, clips: Mapping[str, ParsedClip]) -> dict[str, ParsedClip]:
    """``clips`` by path, the first normal ones of each machine moved from train to test if ``layout`` asks for it.

    As many as there are anomalies in the same folder of that machine, at most half: what MIMII's own baseline does.
    """
    if not LAYOUTS[layout].holds_out:
        return dict(clips)
    normal: dict[str, list[str]] = {}
    anomalies: Counter[str] = Counter()
    for path, clip in clips.items():
        machine = path.rsplit("/", 2)[0]
        if clip.label == "anomaly":
            anomalies[machine] += 1
        elif clip.split == "train":
            normal.setdefault(machine, []).append(path)
    moved = dict(clips)
    for machine, paths in normal.items():
        for path in sorted(paths)[: min(anomalies[machine], len(paths) // 2)]:
            moved[path] = replace(moved[path], split="test")
    return moved


def checked_split(split: str | None, where: str) -> str:
    """``split``, once it is one of ``tables.SPLITS``; ``where`` it was found is used in the error.

    Raises:
        UserError: it is not, or is missing.
    """
    if not split:
        raise UserError(f"{where}: the split is not named; allowed: {', '.join(SPLITS)}")
    if split not in SPLITS:
        raise unknown(f"split ({where})", split, SPLITS)
    return split


def _tail(tail: str) -> dict[str, str]:
    """``vel_6_loc_A`` as pairs; a tail that is not made of distinct pairs is kept whole, as ``attributes``."""
    tail = tail.rstrip("_")
    if tail in ("", NO_ATTRIBUTE):
        return {}
    parts = tail.split("_")
    pairs = dict(zip(parts[::2], parts[1::2], strict=False))
    return pairs if 2 * len(pairs) == len(parts) and all(parts) else {"attributes": tail}


def condition(machine_type: str, section: str, attributes: Mapping[str, str]) -> str:
    """The class trained on, as ``fan|f-n=2|m-n=A``: sorted by key, no two alike; without attributes the machine type.

    A section is one more attribute where the machine has several: equal attributes of two sections are two conditions.
    A ``%``, ``=`` or ``|`` inside a name or value is percent-encoded.
    """
    if section != ONLY_SECTION:
        attributes = {**attributes, "section": section}
    escape = str.maketrans({character: f"%{ord(character):02X}" for character in "%=|"})
    pairs = [f"{key.translate(escape)}={value.translate(escape)}" for key, value in sorted(attributes.items())]
    return "|".join([machine_type.translate(escape), *pairs])


def machine_type_of(condition: str) -> str:
    """The machine type that a condition is of."""
    return unquote(condition.partition("|")[0])


def clip_id(dataset: str, path: str) -> str:
    """``dataset`` and the path below the source; of an absolute path or ``s3://`` URI all but scheme and root."""
    return f"{dataset}/{path.removeprefix('s3://').lstrip('/')}"
