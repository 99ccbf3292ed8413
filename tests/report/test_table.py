"""Tables as text."""

from ray_asd.report.table import Cell, Table, interval, latex, markdown, percent

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
