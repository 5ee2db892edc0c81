"""Where time goes, and what is gained for it: the figures of lesson 07."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fairseg_lite.errors import InputError
from fairseg_lite.plots.style import BLACK, BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, finish, rgb

STAGES = {  # of `propose`, in their order
    "pyramid": BLACK, "trunk": BLUE, "512-d layer": GREEN, "score head": YELLOW, "lateral": ORANGE, "top k": PURPLE,
    "masks": VERMILLION, "paste": SKY,
}  # fmt: skip


def stages(seconds: Mapping[str, Mapping[str, float]], *, x: str = "milliseconds", title: str = "") -> Figure:
    """Where the time goes: a bar for each run, cut into its stages, with the share of the larger ones.

    Args:
        seconds: by run {stage: seconds} (`bench.Stopwatch.seconds`), drawn in milliseconds. The stages of `propose` have
            the same colours in every figure.
        x: label of the axis.
        title: above.
    Raises:
        InputError: nothing to draw.
    Example:
        >>> figure = stages({"coarse": {"trunk": 0.03}, "sharp": {"trunk": 0.03, "masks": 0.06}})
        >>> [round(bar.get_width()) for bar in figure.axes[0].patches]
        [30, 30, 60]

    Lesson: 07.
    """
    if not seconds or not all(sum(run.values()) > 0 for run in seconds.values()):
        raise InputError(f"seconds hold a run without a stage to draw: {dict(seconds)}; wanted {{run: {{stage: seconds}}}}")
    unknown = [s for run in seconds.values() for s in run if s not in STAGES]
    colours = STAGES | {s: CYCLE[i % len(CYCLE)] for i, s in enumerate(dict.fromkeys(unknown))}
    figure, axis = plt.subplots(figsize=(10, 1.1 + 0.62 * len(seconds)), layout="constrained")
    longest = max(sum(run.values()) for run in seconds.values())
    for row, run in enumerate(seconds.values()):
        left, total = 0.0, sum(run.values())
        for stage, value in sorted(run.items(), key=lambda item: list(colours).index(item[0])):
            axis.barh(row, 1e3 * value, left=1e3 * left, height=0.7, color=colours[stage], edgecolor="white")
            if value > 0.05 * longest:
                shade = "white" if rgb(colours[stage]).mean() < 110 else "black"
                axis.text(
                    1e3 * (left + value / 2), row, f"{value / total:.0%}", ha="center", va="center", fontsize=10, color=shade
                )
            left += value
    axis.set_yticks(range(len(seconds)), list(seconds))
    axis.invert_yaxis()
    axis.set(xlabel=x, title=title)
    names = [s for s in colours if any(s in run for run in seconds.values())]
    handles = [Rectangle((0, 0), 1, 1, color=colours[n]) for n in names]
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8), fontsize=10)
    return finish(figure)


def tradeoff(
    lines: Mapping[str, Sequence[tuple]], *, x: str, y: str, title: str = "", joined: bool = True,
    size: tuple[float, float] = (8.5, 4.6),
) -> Figure:  # fmt: skip
    """What is gained for what it costs: labelled points, up is better and left is cheaper.

    Args:
        lines: by name the points (cost, gain, label) or (cost, gain, label, lowest, highest), the range of several runs.
        x, y, title: labels.
        joined: draw a line through the points of a name.
        size: of the figure, inches.
    Raises:
        InputError: nothing to draw.
    Example:
        >>> figure = tradeoff({"DeepMask": [(0.1, 0.4, "10"), (0.2, 0.5, "100")]}, x="seconds", y="AR")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['10', '100']

    Lesson: 07.
    """
    if not lines or not all(lines.values()):
        raise InputError(f"lines {list(lines)} hold no point to draw; wanted {{name: [(cost, gain, label), ...]}}")
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for i, (name, points) in enumerate(lines.items()):
        colour, xs, ys = CYCLE[i % len(CYCLE)], [p[0] for p in points], [p[1] for p in points]
        axis.plot(xs, ys, linestyle="-" if joined else "none", marker="osD^vPX*"[i % 8], markersize=7, color=colour, label=name)
        for cost, gain, label, *ends in points:
            if ends:
                axis.vlines(cost, *ends, color=colour, linewidth=1.5)
            below = i % 2 == 0 and joined  # of two lines the labels stay apart
            axis.annotate(
                label, (cost, gain), xytext=(5, -13 if below else 7), textcoords="offset points", fontsize=9, color=colour
            )
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend()
    return finish(figure)
