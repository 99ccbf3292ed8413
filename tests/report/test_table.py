"""Tables as text."""

from itertools import islice

import pytest

from odd_names import texts
from ray_asd.report.table import Cell, Table, code, interval, latex, markdown, percent, plain

TABLE = Table(
    "Title",
    ["system", "all"],
    [[Cell("a_b & c", "/root/run"), Cell("61.96 ± 0.10")], [Cell("d|e"), Cell("-")]],
    ["A note."],
)


def test_figures_are_rounded_once_and_unknown_ones_are_dashes() -> None:
    assert [percent(value) for value in (0.619649, 0.61965, 1.0, None)] == ["61.96", "61.97", "100.00", "-"]
    assert [percent(value, signed=True) for value in (0.0123, -0.0123)] == ["+1.23", "-1.23"]
    assert interval(0.1, 0.2) == " [10.00, 20.00]"
    assert interval(-0.1, 0.2, signed=True) == " [-10.00, +20.00]"
    assert interval(None, None) == ""


def test_markdown_reads_as_text_and_survives_a_bar() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[:4] == [
        "| system  | all          |",
        "|---------|--------------|",
        "| a_b & c | 61.96 ± 0.10 |",
        r"| d\|e    | -            |",
    ]
    assert lines[5] == "A note."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spectral & hubert+WS+SA (random:tiny)", "spectral & hubert+WS+SA (random:tiny)"),
        ("87.44 [82.14, 91.34]; < 0.1%", "87.44 [82.14, 91.34]; < 0.1%"),
        ("fan_01 [whiten=0.5]", "fan_01 [whiten=0.5]"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
        ("</td><!--", "&lt;/td>&lt;!--"),
        ("A&lt;B & C&#60;", "A&amp;lt;B & C&amp;#60;"),
        ("![x](http://y) [a][b]", r"![x]\(http://y) [a]\[b]"),
        ("*a* _b_ `c` ~~d~~ |", r"\*a\* \_b\_ \`c\` \~~d\~~ \|"),
        ("C:\\plant", r"C:\\plant"),
        ("two\nlines\t\x1b[31m\u202e", r"two\\nlines\\t\\x1b[31m\\u202e"),
        ("ポンプ\u3000é", "ポンプ\u3000é"),
    ],
)
def test_names_are_text_in_markdown(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_code_ends_where_the_text_does() -> None:
    assert [code(text) for text in ("/a/b.wav", "a`b", "``c", "a\nb")] == [
        "`/a/b.wav`",
        "`` a`b ``",
        "``` ``c ```",
        r"`a\nb`",
    ]


def test_a_table_of_odd_names_has_a_line_each_and_no_markup() -> None:
    names = list(islice(texts(8), 500))
    table = Table("Title", ["name", "note"], [[Cell(name), Cell("x")] for name in names], names[:50])
    lines = markdown(table).splitlines()
    assert len(lines) == 2 + len(names) + 1 + 50
    assert all(line.endswith("| x    |") for line in lines[2 : 2 + len(names)])
    assert "<script" not in "".join(lines)
    assert all(line.endswith(r"& x \\") for line in latex(table).splitlines() if " & x" in line)
    assert sum(line.startswith("% ") for line in latex(table).splitlines()) == 50


def test_latex_is_escaped() -> None:
    assert latex(TABLE).splitlines() == [
        "% A note.",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"system & all \\",
        r"\midrule",
        r"a\_b \& c & 61.96 $\pm$ 0.10 \\",
        r"d|e & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_local_place_is_a_link_with_a_scheme() -> None:
    assert [Cell("", uri).href for uri in ("/root/run", "s3://b/run", None)] == ["file:///root/run", "s3://b/run", None]
    assert Cell("", "/a b/#1?%2F").href == "file:///a%20b/%231%3F%252F"
