"""Fig. 2 of the paper: what weight each backbone's layers got in the learned weighted sum."""

import io
from collections import defaultdict
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ray_asd.report.rows import Row

_INCHES = (5.5, 3.2)  # of one panel


def layer_weights(rows: Sequence[Row]) -> bytes | None:
    """An SVG with a panel without and one with SA, a line per backbone, the mean over seeds; None without weights.

    Systems with TFP are left out, since they have the very backbone of their siblings without.
    """
    panels: dict[bool, dict[str, list[Sequence[float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        origin = row.origin
        if origin and origin.parts and origin.layer_weights and not origin.parts.tfp:
            panels[origin.parts.sa][row.system].append(origin.layer_weights)
    if not panels:
        return None
    figure = Figure(figsize=(_INCHES[0] * len(panels), _INCHES[1]), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (sa, systems) in zip(axes, sorted(panels.items()), strict=True):
        for system, weights in sorted(systems.items()):
            axis.plot(np.mean(weights, axis=0), marker="o", markersize=3, label=system)
        axis.set(title="with SA" if sa else "without SA", xlabel="layer (0: before the first)", ylabel="weight")
        axis.legend(fontsize="x-small")
        for text in axis.get_legend().get_texts():
            text.set_parse_math(False)  # a path in a system's name may hold dollars
    drawn = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ray_asd", "svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
