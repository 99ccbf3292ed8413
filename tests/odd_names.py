"""Names that nobody would think of and somebody's recorder writes: drawn from a seed, each of them another one."""

from collections.abc import Iterator

import numpy as np

PIECES = (
    *("..", ".", "...", "/", "//", "\\", "a", "Fan", "fan", "7", "_", "-", "--", "-rf", "~", "CON", "nul.wav", ".wav"),
    *(" ", "\t", "\n", "\r\n", "\x01", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\u200b", "\u3000", "\ufeff"),
    *("%", "%2F", "%2f", "%%", "+", "&", "&amp;", "#", "?", "?versionId=1", ":", ";", ",", "=", "=cmd()", "@", "$x_$"),
    *("*", "**", "`", "``", "|", "'", '"', "<", ">", "<script>alert(1)</script>", "![x](y)", "[a](javascript:b)", "^"),
    *(
        "{",
        "}",
        "[",
        "]",
        "!",
        "!/",
        "é",
        "e\u0301",
        "ポンプ",
        "🔧",
        "\U00010348",
        "section_00",
        "_section_",
        "_test.csv",
    ),
)
LENGTHS = (99, 100, 101, 200, 255, 256, 1000)  # bytes to which some are drawn out


def texts(seed: int) -> Iterator[str]:
    """Without end, no two alike; each piece comes first once."""
    rng = np.random.default_rng(seed)
    known: set[str] = set()
    number = 0
    while True:
        first = PIECES[number] if number < len(PIECES) else ""
        text = first + "".join(rng.choice(PIECES, rng.integers(0, 4)))
        if number % 7 == 6:
            text = text.ljust(LENGTHS[number // 7 % len(LENGTHS)], rng.choice(["x", "é", " ", ".", "%"]))
        number += 1
        if text and text not in known:
            known.add(text)
            yield text
