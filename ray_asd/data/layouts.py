"""How data sets name their recordings: each layout is an entry of data, its names are regular expressions.

A path that fits no pattern is no clip. Paths are POSIX and relative to the data set's source; audio means ``.wav`` or
``.flac`` in any case.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote

from ray_asd.errors import UserError, unknown
from ray_asd.tables import SPLITS

AUDIO = r"(?i:\.(?:wav|flac))"
SIDECAR = re.compile(r"(?i)(?:.*/)?(?:attributes_\d+\.csv|fleet\.json|(?:readme|licen[cs]e|changelog)(?:\.\w+)?)")
ATTRIBUTES = re.compile(r"(?:.*/)?([^/]+)/attributes_\d+\.csv")
NO_ATTRIBUTE = "noAttribute"
HEALTHY_SPLITS = ("train", "calibration")


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


@dataclass(frozen=True, slots=True)
class Layout:
    """A family of names. The groups of ``patterns`` are fields of ``ParsedClip``; the first that fits the path counts.

    ``detectable``: telling enough to be recognised by ``detect``, without being named.
    """

    patterns: tuple[re.Pattern[str], ...]
    detectable: bool = True


def _patterns(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern + AUDIO, re.ASCII) for pattern in patterns)


_MACHINE = r"(?:.*/)?(?P<machine_type>[^/]+)/"
_TAIL = r"_\d{4,}(?:_(?P<attributes>[^/]*?))?"
_SECTION = r"section_(?P<section>\d{2})"

LAYOUTS = {
    "dcase2023": Layout(
        _patterns(
            rf"{_MACHINE}(?P<split>train)/{_SECTION}_(?P<domain>source|target)_train_(?P<label>normal){_TAIL}",
            rf"{_MACHINE}(?P<split>test)/{_SECTION}_(?P<domain>source|target)_test_(?P<label>normal|anomaly){_TAIL}",
            rf"{_MACHINE}(?P<split>test)/{_SECTION}(?:_test)?_\d{{4,}}",
            rf"{_MACHINE}(?P<split>supplemental)/{_SECTION}(?:_[a-zA-Z]+)*?{_TAIL}",
        )
    ),
    "flat": Layout(
        _patterns(
            r"(?:(?P<split>train|calibration|test|supplemental)/)?"
            r"(?:(?:[^/]+/)*?(?P<label>normal|anomaly|abnormal)/)?(?:[^/]+/)*[^/]+"
        ),
        detectable=False,
    ),
    "csv": Layout((), detectable=False),
}


def detect(paths: Iterable[str]) -> str:
    """The layout that most of the audio files among ``paths`` follow; csv for a lone CSV file that is the source.

    Raises:
        UserError: no layout fits, or more than one.
    """
    seen, audio, example = 0, 0, ""
    counts = dict.fromkeys((name for name, layout in LAYOUTS.items() if layout.detectable), 0)
    for path in paths:
        seen += 1
        if is_audio(path) or not example:
            example = path
        audio += is_audio(path)
        for name in counts:
            counts[name] += parse(name, path) is not None
    if seen == 1 and example.lower().endswith(".csv"):
        return "csv"
    fitting = [name for name, count in counts.items() if 2 * count > audio]
    if len(fitting) == 1:
        return fitting[0]
    what = f"layouts {' and '.join(fitting)} both fit" if fitting else "no layout fits"
    found = f"{audio} audio file(s) among {seen} file(s)" + (f", such as {example!r}" if example else "")
    raise UserError(f"{what}: found {found}; name the layout: {', '.join(LAYOUTS)}")


def is_audio(path: str) -> bool:
    """Whether the name promises a recording."""
    return path.lower().endswith((".wav", ".flac"))


def is_sidecar(path: str) -> bool:
    """Whether ``path`` belongs to a data set without being a clip: attribute CSVs, ``fleet.json``, a readme."""
    return SIDECAR.fullmatch(path) is not None


def attributes_of(path: str) -> str | None:
    """The machine type whose attribute CSV ``path`` is (``fan/attributes_00.csv``), or None for any other file."""
    found = ATTRIBUTES.fullmatch(path)
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
    the layout's names do not say them. A clip for training that its folder calls abnormal is None too.

    Raises:
        UserError: no such layout or split, or the path lacks a machine type or split and none is given.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    matches = (pattern.fullmatch(path) for pattern in LAYOUTS[layout].patterns)
    found = next((match.groupdict() for match in matches if match), None)
    if found is None:
        return None
    label = "anomaly" if found.get("label") == "abnormal" else found.get("label")
    split = checked_split(found.get("split") or split, path)
    machine_type = found.get("machine_type") or machine_type
    if not machine_type:
        raise UserError(f"{path}: layout {layout} does not name the machine type; allowed: any name, given beside it")
    if split in HEALTHY_SPLITS:
        if label == "anomaly":
            return None
        label = "normal"
    if attributes is None:
        attributes = _tail(found.get("attributes") or "")
    section = found.get("section") or "00"
    machine_id, domain = found.get("machine_id"), found.get("domain")
    return ParsedClip(machine_type, section, machine_id, domain, split, label, dict(attributes))


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


def condition(machine_type: str, attributes: Mapping[str, str]) -> str:
    """The class trained on, as ``fan|f-n=2|m-n=A``: sorted by key, no two alike; without attributes the machine type.

    A ``%``, ``=`` or ``|`` inside a name or value is percent-encoded.
    """
    escape = str.maketrans({character: f"%{ord(character):02X}" for character in "%=|"})
    pairs = [f"{key.translate(escape)}={value.translate(escape)}" for key, value in sorted(attributes.items())]
    return "|".join([machine_type.translate(escape), *pairs])


def machine_type_of(condition: str) -> str:
    """The machine type that a condition is of."""
    return unquote(condition.partition("|")[0])


def clip_id(dataset: str, path: str) -> str:
    """``dataset`` and the path below the source; of an absolute path or ``s3://`` URI all but scheme and root."""
    return f"{dataset}/{path.removeprefix('s3://').lstrip('/')}"
