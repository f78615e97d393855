"""The figure of an ablation, in the style of `gcd.report.figures`."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gcd.report.figures import COLOURS, LINES, MARKERS, STYLE
from gcd.report.tables import SUCCESS, VALID

# What is drawn and printed of a point or a seed: {metric: label}, in the order of the legend.
DRAWN = {SUCCESS: "success", VALID: "valid actions", "teacher_agreement": "teacher agreement"}
DEFAULT_NOTE = "\n(default)"
# Counts of this ratio of largest to smallest, and wider ones, stand on a logarithmic axis.
LOGARITHMIC = 8.0


def numbers_of(points: list[str]) -> list[float] | None:
    """The points' labels as numbers; None if one of them is none."""
    try:
        return [float(point) for point in points]
    except ValueError:
        return None


def draw_points(record: pd.DataFrame, axis: str, metrics: dict[str, str]) -> Figure:
    """Shares with intervals against the points of an ablation.

    Marks are joined by lines where the labels are numbers, and stand at these. Lines of the same
    point lie a little beside each other.

    Args:
        record: columns point, default, metric, value, low, high (shares), in the points' order.
        axis: what differs between the points.
        metrics: {metric: label}, in the order of the legend.
    """
    points = list(dict.fromkeys(record["point"]))
    numbers = numbers_of(points)
    marked = set(record["point"][record["default"]])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        places = _places(axes, points, numbers)
        for order, (metric, label) in enumerate(metrics.items()):
            found = record[record["metric"] == metric]
            shift = 0.012 * (order - (len(metrics) - 1) / 2)
            axes.errorbar(
                [places[point] + shift for point in found["point"]],
                found["value"] * 100,
                yerr=[
                    ((found["value"] - found["low"]).clip(lower=0) * 100).tolist(),
                    ((found["high"] - found["value"]).clip(lower=0) * 100).tolist(),
                ],
                linestyle=LINES[order % len(LINES)] if numbers else "none",
                linewidth=0.9,
                marker=MARKERS[order % len(MARKERS)],
                color=COLOURS[order % len(COLOURS)],
                markersize=5.5,
                elinewidth=1.2,
                capsize=2.5,
                label=label,
            )
        for point in sorted(set(points) - set(record["point"][record["value"].notna()])):
            axes.text(places[point], 50, "failed", ha="center", va="center", style="italic")
        names = [point.replace("_", " ") + DEFAULT_NOTE * (point in marked) for point in points]
        axes.set_xticks([places[point] for point in points], names)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(-0.06, 1.06)
        axes.set_ylim(-1.5, 101.5)
        axes.set_xlabel(axis)
        axes.set_ylabel("share (%) with its interval")
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=len(metrics), frameon=False)
    return figure


def _places(axes: Axes, points: list[str], numbers: list[float] | None) -> dict[str, float]:
    """Where each point stands, from 0 to 1: at its number, at that's logarithm, or in its turn."""
    if numbers is None:
        numbers = [float(place) for place in range(len(points))]
    elif min(numbers) >= 1 and max(numbers) / min(numbers) >= LOGARITHMIC:
        numbers = [math.log2(number) for number in numbers]
    span = max(numbers) - min(numbers) or 1.0
    return {
        point: (number - min(numbers)) / span for point, number in zip(points, numbers, strict=True)
    }
