"""Floor 4: every figure of the lessons and of the command line. Functions take arrays and return a matplotlib Figure."""

from fairseg_lite.plots.charts import bars, boundary_curve, curves, flow, histogram, overlap_table, pipeline_map, zones
from fairseg_lite.plots.costs import stages, tradeoff
from fairseg_lite.plots.pictures import (
    cells,
    close_ups,
    frames,
    grid,
    hits,
    patch_hits,
    patches,
    scene,
    tinted,
    to_pixels,
    windows,
)
from fairseg_lite.plots.style import BLACK, BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, style

__all__ = [
    "BLACK", "BLUE", "CYCLE", "GREEN", "ORANGE", "PURPLE", "SKY", "VERMILLION", "YELLOW", "bars", "boundary_curve", "cells",
    "close_ups", "curves", "flow", "frames", "grid", "histogram", "hits", "overlap_table", "patch_hits", "patches",
    "pipeline_map", "scene", "stages", "style", "tinted", "to_pixels", "tradeoff", "windows", "zones",
]  # fmt: skip
