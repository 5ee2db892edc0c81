"""Colours and settings of every figure.

Colours are Okabe and Ito's, told apart by every kind of colour vision: green for positives and hits, vermillion for negatives and
misses, blue for predictions.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK)


def style() -> None:
    """Large, labelled, small on disk: called once by a lesson's set-up."""
    plt.rcParams.update(
        {
            "figure.dpi": 90, "savefig.dpi": 90, "font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12,
            "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=CYCLE),
            "lines.linewidth": 2.2, "legend.frameon": False, "image.interpolation": "nearest",
        }
    )  # fmt: skip
    try:  # in a notebook: pictures as JPEG, several times smaller than PNG
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("jpeg", pil_kwargs={"quality": 76, "optimize": True, "progressive": True})
    except ImportError:
        pass


def finish(figure: Figure) -> Figure:
    """Close a figure and return it."""
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def rgb(colour: str) -> np.ndarray:
    """ "#RRGGBB" as (3,) float32 of 0 to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
