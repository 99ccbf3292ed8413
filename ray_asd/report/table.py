"""A table as text: cells, some of them links, and its forms as Markdown and LaTeX. Figures are rounded here only."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}
_MARKUP = re.compile(
    r"[\\`*|]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|~(?=~)|(?<=\])[(\[:]|(?<![^\W_])_|_(?![^\W_])"
)  # where it means something; elsewhere text stays as it is, since tables are read as text too
_AS_ENTITY = {"<": "&lt;", "&": "&amp;"}


@dataclass(frozen=True)
class Cell:
    """Text, and the place that it comes from."""

    text: str
    uri: str | None = None

    @property
    def href(self) -> str | None:
        """``uri`` as a link: a local path needs a scheme."""
        return f"file://{quote(self.uri)}" if self.uri and self.uri.startswith("/") else self.uri


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header, with a title and what has to be said of them."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in percent with two decimals; ``-`` where it is not known."""
    if value is None:
        return "-"
    return f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def interval(low: float | None, high: float | None, signed: bool = False) -> str:
    """The ends of an interval behind its figure, or nothing."""
    return "" if low is None else f" [{percent(low, signed)}, {percent(high, signed)}]"


def markdown(table: Table) -> str:
    """A Markdown table; the columns are padded so that it reads as text too."""
    lines = [[plain(text) for text in line] for line in _texts(table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*rows, "", *map(plain, table.notes), ""])


def plain(text: str) -> str:
    """``text`` in Markdown: names are shown on one line as they are, never taken for markup."""
    return _MARKUP.sub(lambda found: _AS_ENTITY.get(found[0], f"\\{found[0]}"), visible(text))


def code(text: str) -> str:
    """``text`` as code in Markdown."""
    text = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def visible(text: str) -> str:
    """Line breaks, control characters and the like as their escapes."""
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else sign.encode("unicode_escape").decode()
        for sign in text
    )


def latex(table: Table) -> str:
    """A LaTeX ``tabular`` in the style of the booktabs package."""
    header, *rows = (" & ".join(_escaped(text) for text in line) + r" \\" for line in _texts(table))
    columns = "l" + "r" * (len(table.header) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*(f"% {visible(note)}" for note in table.notes), *body, r"\end{tabular}", ""])


def _texts(table: Table) -> list[list[str]]:
    return [list(table.header), *([cell.text for cell in row] for row in table.rows)]


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in visible(text))
