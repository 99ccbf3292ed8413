"""A user's own layout: how the paths of recordings say what each is of and when it was made.

    {machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav
    {recorded_at:%Y/%m/%d}/{machine_type}-{machine_id}/*_{recorded_at:%H%M%S%z}.wav

A field in braces is one of ``FIELDS`` or the name of an attribute, ``*`` is anything; neither goes beyond a folder's
name. All else stands as it is, ``{{`` for a brace. ``recorded_at`` has a format of ``strptime`` (``DIRECTIVES``, with
leading zeros), which may be spread over several fields; it is in UTC unless ``%z`` states an offset. What is named
twice must be equal. A path that fits in two ways fits in none: which machine is meant would be a guess.
"""

import math
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from ray_asd.data import layouts
from ray_asd.data.layouts import HEALTHY_SPLITS, ONLY_SECTION, ParsedClip
from ray_asd.errors import UserError
from ray_asd.tables import DOMAINS, LABELS, SPLITS

RECORDED_AT = "recorded_at"
FIELDS = ("machine_type", "section", "machine_id", "domain", "split", "label", RECORDED_AT)
DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "b": "[A-Za-z]{3}",
    "d": r"\d{2}",
    "j": r"\d{3}",
    "H": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "z": r"Z|[+-]\d{2}:?\d{2}",
}
_DATES = ({"Y", "m", "d"}, {"Y", "b", "d"}, {"Y", "j"}, {"y", "m", "d"}, {"y", "b", "d"}, {"y", "j"})
_CHOICES = {"domain": DOMAINS, "split": SPLITS, "label": (*LABELS, "abnormal")}
_MOST_WAYS = 100_000  # that a name is tried in
_ANYTHING = "*"
_ENDING = re.compile(r"(?i)\\\.(?:wav|flac)\Z")  # of text that is escaped


@dataclass(frozen=True, slots=True)
class _Token:
    """Text as it stands; or, of a field, a directive or anything but an end of a folder's name."""

    name: str | None  # None: text
    text: str = ""

    def __str__(self) -> str:
        if self.name is None or self.name == _ANYTHING:
            return self.name or self.text
        return f"{{{self.name}}}" if self.is_open else f"{{{RECORDED_AT}:{self.name}}}"

    @property
    def is_open(self) -> bool:
        return self.name is not None and not self.name.startswith("%")

    def expression(self, how: str) -> str:
        if self.name is None:
            return _ENDING.sub(r"(?i:\g<0>)", re.escape(self.text))
        return f"([^/]+{how})" if self.is_open else f"({DIRECTIVES[self.name[1:]]})"


@dataclass(frozen=True)
class _Part:
    """What one folder's name, or a file's, must look like."""

    tokens: Sequence[_Token]

    @cached_property
    def names(self) -> list[str]:
        return [token.name for token in self.tokens if token.name is not None]

    @cached_property
    def _open(self) -> int:
        return sum(token.is_open for token in self.tokens)

    @cached_property
    def _expressions(self) -> list[re.Pattern[str]]:
        """Those in which fields are as short and as long as can be: alike for a name that fits in one way alone."""
        ways = ("?", "") if self._open > 1 else ("",)
        return [re.compile("".join(token.expression(how) for token in self.tokens), re.ASCII) for how in ways]

    def fits(self, name: str) -> list[Sequence[str]]:
        """The fields of ``name``, from left to right, at their shortest and longest; empty where it does not fit."""
        if self._open > 1:
            between = sum(name.count(token.text) for token in self.tokens if token.name is None)
            if math.comb(between, min(between, self._open)) > _MOST_WAYS:
                return []
        return [match.groups() for way in self._expressions if (match := way.fullmatch(name))]


@dataclass(frozen=True)
class Pattern:
    """A pattern, and what holds where it has no such field.

    Raises:
        UserError: it is malformed, or neither it nor what is given beside it tells machine type and split.
    """

    text: str
    machine_type: str | None = None
    split: str | None = None
    _parts: list[_Part] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tokens = _tokens(self.text)
        object.__setattr__(self, "_parts", list(_parts(tokens, self.text)))
        _check(self._parts, self.text)
        names = {token.name for token in tokens}
        for name, option, allowed in (
            ("machine_type", self.machine_type, "any name"),
            ("split", self.split, ", ".join(SPLITS)),
        ):
            if not option and name not in names:
                raise UserError(
                    f"pattern {self.text!r} does not name the {name.replace('_', ' ')}; allowed: {{{name}}} in it, "
                    f"or one given beside it ({allowed})"
                )

    def read(self, path: str) -> ParsedClip | str:
        """The clip at ``path``, relative to the source; or why it is none."""
        told = self._told(path)
        if isinstance(told, str):
            return told
        for name, allowed in _CHOICES.items():
            if name in told and told[name] not in allowed:
                return f"{name} {told[name]!r}; allowed: {', '.join(allowed)}"
        try:
            recorded_at = _instant({name: told.pop(name) for name in list(told) if name.startswith("%")})
        except (ValueError, OverflowError) as error:
            return f"{RECORDED_AT}: {error}"
        return self._clip(told, recorded_at)

    def _clip(self, told: dict[str, str], recorded_at: datetime | None) -> ParsedClip | str:
        machine_type, split = told.pop("machine_type", self.machine_type), told.pop("split", self.split)
        section, machine_id = told.pop("section", ONLY_SECTION), told.pop("machine_id", None)
        domain, label = told.pop("domain", None), told.pop("label", None)
        label = "anomaly" if label == "abnormal" else label
        if split in HEALTHY_SPLITS:
            if label == "anomaly":
                return f"an anomaly in split {split!r}; allowed there: normal"
            label = "normal"
        return ParsedClip(str(machine_type), section, machine_id, domain, str(split), label, told, recorded_at)

    def _told(self, path: str) -> dict[str, str] | str:
        """What each field, and each directive such as ``%Y``, is in ``path``."""
        names = path.split("/")
        told: dict[str, str] = {}
        fits = [part.fits(name) for part, name in zip(self._parts, names, strict=False)]
        if len(names) != len(self._parts) or not all(fits) or not layouts.is_audio(path):
            return f"pattern {self.text} does not fit such a path"
        for part, ways in zip(self._parts, fits, strict=True):
            for name, shortest, longest in zip(part.names, ways[0], ways[-1], strict=True):
                if name == _ANYTHING:
                    continue
                if shortest != longest:
                    several = f"{name} is {shortest!r} or {longest!r}"
                    return f"pattern {self.text} fits such a path in several ways: {several}"
                if told.setdefault(name, shortest) != shortest:
                    return f"{name} is {told[name]!r} and {shortest!r} in it; it must be the same"
        return told


def _instant(told: dict[str, str]) -> datetime | None:
    return layouts.in_utc(datetime.strptime(" ".join(told.values()), " ".join(told))) if told else None


def _tokens(text: str) -> list[_Token]:
    """``text`` in pieces; of text that stands as it is each ``/`` is one.

    Raises:
        UserError: braces or a field are malformed.
    """
    tokens: list[_Token] = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise _wrong(text, str(error).lower(), "{field}, {{ and }} for braces themselves") from error
    for literal, name, form, conversion in pieces:
        tokens += [
            _Token(*((_ANYTHING,) if piece == "*" else (None, piece))) for piece in re.findall(r"[*/]|[^*/]+", literal)
        ]
        if name is None:
            continue
        if conversion or not name or re.search(r"[^\w.-]", name):
            shown = name + (f"!{conversion}" if conversion else "")
            raise _wrong(text, f"field {shown!r}", f"{', '.join(FIELDS)}, or the name of an attribute")
        if name != RECORDED_AT and form:
            raise _wrong(text, f"field {name!r} has a format, {form!r}", f"a format of {RECORDED_AT} alone")
        tokens += _of_format(text, form or "") if name == RECORDED_AT else [_Token(name.removeprefix("attr."))]
    return tokens


def _of_format(text: str, form: str) -> Iterator[_Token]:
    if not form:
        raise _wrong(text, f"{RECORDED_AT} has no format", f"one of strptime, such as {{{RECORDED_AT}:%Y%m%dT%H%M%S}}")
    for piece in re.findall(r"%.?|/|[^%/]+", form):
        if not piece.startswith("%") or piece == "%%":
            yield _Token(None, piece.replace("%%", "%"))
        elif piece[1:] in DIRECTIVES:
            yield _Token(piece)
        else:
            known = " ".join(f"%{letter}" for letter in DIRECTIVES)
            raise _wrong(text, f"{RECORDED_AT} has {piece!r} in its format", f"{known} %%")


def _parts(tokens: Sequence[_Token], text: str) -> Iterator[_Part]:
    part: list[_Token] = []
    for token in [*tokens, _Token(None, "/")]:
        if token.text != "/":
            part.append(token)
            continue
        if not part:
            raise _wrong(
                text, "a part of the path is empty", "a path relative to the source, such as {machine_id}/*.wav"
            )
        yield _Part(part)
        part = []


def _check(parts: Sequence[_Part], text: str) -> None:
    """
    Raises:
        UserError: where a field ends could not be told, nothing that fits would be a recording, or a time is half told.
    """
    for part in parts:
        for token, following in zip(part.tokens, part.tokens[1:], strict=False):
            if (token.is_open and following.name) or (token.name and following.is_open):
                both = f"{token} and {following}"
                raise _wrong(text, f"{both} have no text between them", "fields with text between, such as _ or /")
    last = parts[-1].tokens[-1]
    if last.name != _ANYTHING and not layouts.is_audio(last.text):
        raise _wrong(text, "it ends like no recording", ", ".join([*layouts.ENDINGS, ".* at its end"]))
    told = {name[1:] for part in parts for name in part.names if name.startswith("%")}
    if told and not any(date <= told for date in _DATES):
        raise _wrong(text, f"{RECORDED_AT} has no whole date", "%Y%m%d and the like, %H%M%S beside it")
    for smaller, larger in ("MH", "SM", "fS"):
        if smaller in told and larger not in told:
            raise _wrong(text, f"{RECORDED_AT} has %{smaller} without %{larger}", "%H, %H%M, %H%M%S or %H%M%S%f")


def _wrong(text: str, what: str, allowed: str) -> UserError:
    return UserError(f"pattern {text!r}: {what}; allowed: {allowed}")
