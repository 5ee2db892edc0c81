"""Floor 4: every figure of the lessons and of the command line. Functions take arrays and return a matplotlib Figure."""

from fairseg_lite.plots.charts import (
    ablation,
    bars,
    boundary_curve,
    curves,
    histogram,
    precision_curve,
    stages,
    tradeoff,
)
from fairseg_lite.plots.diagrams import cells, confusion_table, flow, overlap_table, pipeline_map, zones
from fairseg_lite.plots.pictures import (
    apart,
    box_close_ups,
    close_ups,
    frames,
    grid,
    hits,
    named,
    patch_hits,
    patches,
    scene,
    tinted,
    to_pixels,
    windows,
)
from fairseg_lite.plots.style import BLACK, BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, style

__all__ = [
    "BLACK", "BLUE", "CYCLE", "GREEN", "ORANGE", "PURPLE", "SKY", "VERMILLION", "YELLOW", "ablation", "apart", "bars",
    "boundary_curve", "box_close_ups", "cells", "close_ups", "confusion_table", "curves", "flow", "frames", "grid", "histogram",
    "hits", "named", "overlap_table", "patch_hits", "patches", "pipeline_map", "precision_curve", "scene", "stages", "style",
    "tinted", "to_pixels", "tradeoff", "windows", "zones",
]  # fmt: skip
