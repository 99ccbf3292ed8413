"""Which layout a data set follows, told by its names: what fits most of them, and what tells look-alikes apart."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ray_asd.data import layouts
from ray_asd.data.years import FORMS, LAYOUTS, Layout
from ray_asd.errors import UserError

DETECTABLE = {name: layout for name, layout in LAYOUTS.items() if layout.protocol}


@dataclass(frozen=True, slots=True)
class Recognised:
    """A layout, and a sentence on why it was taken."""

    layout: str
    why: str


@dataclass(slots=True)
class _Seen:
    """What the paths of a source show."""

    files: int = 0
    audio: int = 0
    example: str = ""
    forms: Counter[str] = field(default_factory=Counter)
    sections: set[str] = field(default_factory=set)
    machine_types: set[str] = field(default_factory=set)
    with_attributes: set[str] = field(default_factory=set)  # machine types; of training clips alone
    without_attributes: set[str] = field(default_factory=set)
    attribute_csv: bool = False

    def fitting(self, layout: Layout) -> int:
        return sum(self.forms[form] for form in layout.forms)


def detect(paths: Iterable[str], refused: str = "") -> Recognised:
    """The layout that most of the audio files among ``paths`` follow; csv for a lone CSV file that is the source.

    Where the names fit several years, these tell them apart in turn: the sections, the machine types, the machine
    types whose attributes are hidden, attribute CSVs. Years that are still alike, have the same forms of name and the
    same official metrics are read alike, and the first one stands for them. ``refused`` tells of files beside them.

    Raises:
        UserError: no layout fits, or several do that would be read or judged differently.
    """
    seen = _look(map(layouts.collapsed, paths))
    if seen.files == 1 and seen.example.lower().endswith(".csv"):
        return Recognised("csv", f"csv: the source is one CSV file, {seen.example}")
    fits = {name: seen.fitting(layout) for name, layout in DETECTABLE.items()}
    most = max(fits.values())
    alike = [name for name, fit in fits.items() if fit == most and 2 * fit > seen.audio]
    for tell in (_sections, _machine_types, _hidden, _csv):
        best = max((tell(seen, DETECTABLE[name]) for name in alike), default=0)
        alike = [name for name in alike if tell(seen, DETECTABLE[name]) == best]
    if not alike or len({_reading(seen, DETECTABLE[name]) for name in alike}) > 1:
        raise UserError(_refusal(seen, alike, refused))
    return Recognised(alike[0], _why(seen, alike, most))


def _look(paths: Iterable[str]) -> _Seen:
    forms = list(dict.fromkeys(form for layout in DETECTABLE.values() for form in layout.forms))
    seen = _Seen()
    for path in paths:
        seen.files += 1
        audio = layouts.is_audio(path)
        if audio or not seen.example:
            seen.example = path
        if not audio:
            seen.attribute_csv |= layouts.attributes_of(path) is not None
            continue
        seen.audio += 1
        for form in forms:
            match = FORMS[form].fullmatch(path)
            if match:
                _note(seen, form, match.groupdict())
                forms.remove(form)
                forms.insert(0, form)  # the next name is likely to be like this one
                break
    return seen


def _note(seen: _Seen, form: str, groups: dict[str, str | None]) -> None:
    seen.forms[form] += 1
    machine_type = groups["machine_type"] or ""
    seen.machine_types.add(machine_type)
    seen.sections.add(groups["section"] or "")
    if form == "train":
        told = (groups["attributes"] or "").rstrip("_") not in ("", layouts.NO_ATTRIBUTE)
        (seen.with_attributes if told else seen.without_attributes).add(machine_type)


def _sections(seen: _Seen, layout: Layout) -> int:
    if seen.sections in layout.sections:
        return 2
    return int(any(seen.sections < known for known in layout.sections))


def _machine_types(seen: _Seen, layout: Layout) -> int:
    return len(seen.machine_types & layout.machine_types)


def _hidden(seen: _Seen, layout: Layout) -> int:
    bare = seen.without_attributes - seen.with_attributes
    return len(bare & layout.attribute_free) - len(seen.with_attributes & layout.attribute_free)


def _csv(seen: _Seen, layout: Layout) -> int:
    return int(layout.attribute_csv or not seen.attribute_csv)


def _reading(seen: _Seen, layout: Layout) -> tuple[str | None, frozenset[str]]:
    """What depends on taking this layout and no other: the official metrics, and which names are understood."""
    return layout.protocol, frozenset(form for form in layout.forms if seen.forms[form])


def _why(seen: _Seen, alike: list[str], fit: int) -> str:
    name, *others = alike
    layout = DETECTABLE[name]
    known = sorted(seen.machine_types & layout.machine_types)
    facts = [f"{fit} of {seen.audio} recordings follow its names", f"section {', '.join(sorted(seen.sections))}"]
    facts.append(f"of its machine types {', '.join(known)}" if known else "none of its machine types")
    bare = sorted(seen.without_attributes & layout.attribute_free)
    if bare:
        facts.append(f"attributes hidden for {', '.join(bare)} as there")
    if others:
        facts.append(f"{', '.join(others)} would be read in the same way")
    return f"{name}: {'; '.join(facts)}"


def _refusal(seen: _Seen, alike: list[str], refused: str) -> str:
    found = f"{seen.audio} audio file(s) among {seen.files} file(s)"
    found += f", such as {seen.example!r}" if seen.files else ""
    found += f", and {refused}" if refused else ""
    what = "no layout fits"
    if alike:
        tells = "; ".join(f"{name} has {_described(DETECTABLE[name])}" for name in alike)
        what = f"layouts {' and '.join(alike)} fit equally ({tells})"
    names = ", ".join(name for name in LAYOUTS if name != "pattern")
    return f"{what}: found {found}; name the layout: {names}; or give the pattern of its paths"


def _described(layout: Layout) -> str:
    sets = [" ".join(sorted(known)) for known in layout.sections[:2]]
    return f"sections {' or '.join(sets)} and {layout.protocol} metrics" if sets else f"{layout.protocol} metrics"
