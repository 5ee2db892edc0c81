"""Floor 4: every figure of the lessons and of the command line. Functions take arrays and return a matplotlib Figure."""
# ruff: noqa: I001 (names in rows, not one a line)

from fairseg_lite.plots.charts import (
    BLACK, BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, ablation, bars, boundary_curve, curves, histogram,
    precision_curve, stages, style, tradeoff,
)  # fmt: skip
from fairseg_lite.plots.diagrams import (
    box_close_ups, cells, confusion_table, flow, frames, overlap_table, pipeline_map, windows, zones,
)  # fmt: skip
from fairseg_lite.plots.pictures import apart, close_ups, grid, hits, named, patch_hits, patches, scene, tinted, to_pixels

__all__ = [
    "BLACK", "BLUE", "CYCLE", "GREEN", "ORANGE", "PURPLE", "SKY", "VERMILLION", "YELLOW", "ablation", "apart", "bars",
    "boundary_curve", "box_close_ups", "cells", "close_ups", "confusion_table", "curves", "flow", "frames", "grid", "histogram",
    "hits", "named", "overlap_table", "patch_hits", "patches", "pipeline_map", "precision_curve", "scene", "stages", "style",
    "tinted", "to_pixels", "tradeoff", "windows", "zones",
]  # fmt: skip
