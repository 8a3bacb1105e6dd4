"""The paper's three charts as SVG, drawn by matplotlib: frequency, host cost, impact on the guest."""

import io

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

# Okabe and Ito's colours, which all kinds of eyes can tell apart: one a class of the paper.
COLOURS = {"agent": "#CC79A7", "halt-snap": "#D55E00", "live-snap": "#E69F00", "live-map": "#0072B2", "live-read": "#56B4E9",
           "halt-map/read": "#009E73", "live-interface": "#000000", "halt-interface": "#8A8A8A"}
HATCHES = {None: "", 1: "..", 10: "//", 100: "xx"}

pyplot.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False,
                        "axes.axisbelow": True, "svg.fonttype": "path", "svg.hashsalt": "vmsight"})


def plain(value, _=None):
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def label(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def bars(rows, axis_title, log=True, reference=None):
    """Horizontal bars. Rows: (name, class, value, low, high, note); a value of None is said, not drawn."""
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.36 * len(rows)))
    drawn = [row for row in rows if row[2]]
    for place, (_, family, value, low, high, note) in enumerate(reversed(rows)):
        if not value:
            axes.text(0.01, place, note or "not measured", transform=axes.get_yaxis_transform(), va="center", fontsize=8,
                      color="#666666", style="italic")
            continue
        axes.barh(place, value, color=COLOURS.get(family, "#999999"), height=0.66)
        if low is not None and high > low:
            axes.plot([low, high], [place, place], color="#333333", linewidth=1.2, marker="|", markersize=5)
        axes.annotate(f"{note or ''}{label(value)}", (max(value, high or 0), place), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    if log and drawn:
        values = [row[2] for row in drawn] + [row[4] for row in drawn if row[4]]
        axes.set_xscale("log")
        axes.set_xlim(min(row[2] for row in drawn) / 2, max(values) * 3)
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif drawn:
        axes.set_xlim(0, max(row[4] or row[2] for row in drawn) * 1.15)
    if reference:
        axes.axvline(reference, color="#333333", linewidth=1, linestyle="--")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.7)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(axis_title)
    return svg(figure)


def frequency(rows):
    return bars(rows, "whole states a second, best round (logarithmic); line: quartiles of the rounds")


def cost(rows):
    return bars(rows, "CPU of one host core per view a second, % per Hz (logarithmic)")


def impact(rows, workload, what):
    return bars(rows, f"{workload}: times as bad as unwatched ({what}); line: quartiles of the pairs", log=True, reference=1)
