"""What every lesson shares: set-up, scale, source display, timing; and, from their own files, checks and predictions.

Scale: "smoke" (CI: short training, claims asserted on the shipped checkpoint) or "lesson" (what the stored outputs show).
"""

import base64
import inspect
import io
import os
import platform
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from fairseg_lite.course.checks import check, hint, solution
from fairseg_lite.course.predictions import live, predict, tally
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.training.shards import best_device, synchronize

__all__ = ["Here", "check", "hint", "predict", "setup", "show", "show_source", "slide", "solution", "tally", "timed"]

SCALES = ("smoke", "lesson")


@dataclass(frozen=True)
class Here:
    """What `setup` found: the scale, and the device that lessons compute on."""

    scale: str
    device: torch.device

    @property
    def smoke(self) -> bool:
        return self.scale == "smoke"

    def pick(self, *, smoke: Any, lesson: Any) -> Any:
        """The value for this scale.

        Example:
            >>> Here("smoke", torch.device("cpu")).pick(smoke=3, lesson=1000)
            3
        """
        return smoke if self.smoke else lesson


def setup(scale: str = "lesson", seed: int = 0) -> Here:
    """Seed the generators, set the style of figures, and say what machine this is.

    Args:
        scale: "lesson", or "smoke" to see only that a lesson runs; FAIRSEG_SCALE in the environment goes first.
        seed: for numpy's and torch's global generators, which a lesson's own cells may use.
    Returns: Here, with scale and device.
    Raises: InputError, the scale is neither "smoke" nor "lesson".
    """
    from fairseg_lite import plots

    check_choice("the scale", scale := os.environ.get("FAIRSEG_SCALE", scale), SCALES)
    np.random.seed(seed)  # noqa: NPY002  (cells of a lesson may use the global generator)
    torch.manual_seed(seed)
    plots.style()
    device = best_device()
    where = {"cpu": f"{torch.get_num_threads()} threads on the CPU", "mps": "an Apple GPU"}.get(device.type)
    where = where or torch.cuda.get_device_name()
    note = ", cut short: numbers will not be those of the text" if scale == "smoke" else ""
    print(f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}, {where}, scale: {scale}{note}")
    return Here(scale, device)


def show(figure: Figure, *, alt: str) -> None:
    """Show a figure, with words for those who do not see it.

    Charts are PNG at twice the resolution of the page; what holds pictures is JPEG, many times smaller.

    Args:
        figure: as the functions of `plots` return it.
        alt: what it shows, in a sentence.
    Raises: InputError, alt says nothing.
    """
    _display([figure], alt)


def slide(draw: Callable[..., Figure], *, alt: str, **values: Sequence[Any]) -> None:
    """Show a figure that the reader can change: a slider for each argument of `draw`.

    Where nobody can move a slider (GitHub, a notebook that is only run, no ipywidgets) the figure is shown at the sliders' left
    ends, middles and right ends; and that picture stays in the notebook's file, whoever saves it.

    Args:
        draw: called with one value of each name; its figure says which, in a title.
        alt: what the figures show, in a sentence.
        values: by the name of each argument all that it can be, at least two.
    Raises: InputError, alt says nothing; there is nothing to move, or nowhere to move it to.
    """
    if not values or min(len(v) for v in values.values()) < 2:
        found = {name: len(v) for name, v in values.items()}
        raise InputError(f"there are {found} values; wanted a name with at least two, such as k=(1, 10, 100)")
    places = dict.fromkeys(tuple(v[round(part * (len(v) - 1))] for v in values.values()) for part in (0, 0.5, 1))
    figures, views = [draw(**dict(zip(values, place, strict=True))) for place in places], {}
    if live():
        import ipywidgets as w

        middle = list(places)[len(places) // 2]
        sliders = {
            name: w.SelectionSlider(options=list(v), value=at, description=name, continuous_update=False)
            for (name, v), at in zip(values.items(), middle, strict=True)
        }
        box = w.VBox([*sliders.values(), w.interactive_output(lambda **now: show(draw(**now), alt=alt), sliders)])
        views["application/vnd.jupyter.widget-view+json"] = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    _display(figures, alt, views)


def _display(figures: Sequence[Figure], alt: str, views: dict | None = None) -> None:
    """Figures as one picture, beside each other where they are narrow; `views` are what a front end may show instead."""
    from IPython.display import display
    from PIL import Image

    if len(alt.split()) < 4:
        raise InputError(f"alt is {alt!r}; wanted a sentence on what the figure shows")
    pictures, panels = any(axis.images for figure in figures for axis in figure.axes), []
    for figure in figures:
        figure.savefig(file := io.BytesIO(), format="png", dpi=figure.dpi * (1 if pictures else 2))
        panels.append(Image.open(file).convert("RGB"))
    sides, across = np.array([p.size for p in panels]), sum(f.get_figwidth() for f in figures) <= 12  # inches
    image = Image.new("RGB", tuple(np.where([across, not across], sides.sum(0), sides.max(0)).tolist()), "white")
    for panel, before in zip(panels, sides.cumsum(0) - sides, strict=True):
        image.paste(panel, tuple((before * [across, not across]).tolist()))
    mime, data = "image/jpeg" if pictures else "image/png", io.BytesIO()
    options: dict = {"quality": 80, "progressive": True} if pictures else {}
    (image if pictures else image.quantize(64)).save(data, mime.removeprefix("image/"), optimize=True, **options)
    about = {"alt": alt} if pictures else {"alt": alt, "width": image.width // 2, "height": image.height // 2}
    shown = {mime: base64.b64encode(data.getvalue()).decode(), "text/plain": alt, **(views or {})}
    display(shown, metadata={mime: about}, raw=True)


class _Source(str):
    """Source text that notebooks show in colour and terminals as it is."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from IPython.lib.display import Code

        return Code(str(self), language="python")._repr_html_()

    def __repr__(self) -> str:
        return str(self)


def show_source(thing: Any) -> _Source:
    """The library's real source of a function or class, to read and not to type.

    Example:
        >>> print(show_source(Here.pick).splitlines()[0])
            def pick(self, *, smoke: Any, lesson: Any) -> Any:
    """
    return _Source(inspect.getsource(thing))


def timed(**functions: Callable[[], Any]) -> dict[str, float]:
    """Run functions several times each, print their best times and how many times faster than the first they are.

    Args:
        functions: name=function without arguments; each runs at least three times or half a second; once if that takes 20 s.
            The time ends when the device that lessons compute on has done what was asked of it.
    Returns: Seconds by name.
    """
    seconds: dict[str, float] = {}
    for name, function in functions.items():
        timer = timeit.Timer("work(); wait(device)", globals={"work": function, "wait": synchronize, "device": best_device()})
        first = timer.timeit(number=1)
        more = 0 if first > 20 else min(max(2, int(0.5 / first)), 99)
        seconds[name] = min([first, *timer.repeat(number=1, repeat=more)])
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"{name:>16}: {value * 1000:10.3f} ms   {first / value:8.1f}x")
    return seconds
