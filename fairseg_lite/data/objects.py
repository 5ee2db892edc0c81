"""Which objects of a data set a network can learn from, and what is said of the others."""

import numpy as np

from fairseg_lite.data.scenes import InstanceTable, SceneDataset
from fairseg_lite.errors import InputError


def usable_rows(dataset: SceneDataset, *, min_area: float = 100, min_side: float = 5) -> np.ndarray:
    """Rows of the instance table that can be positives: no crowd, with a mask, not tiny.

    Raises:
        InputError: none is left; says how many each limit excluded.
    """
    t = dataset.instances
    sides = (t.box[:, 2:] - t.box[:, :2]).min(1) if len(t) else np.zeros(0)
    able = ~t.crowd & t.masked
    tiny = able & ((t.area < min_area) | (sides < min_side))
    rows = np.flatnonzero(able & ~tiny)
    if len(rows) == 0:
        boxes = int((~t.crowd & ~t.masked).sum())
        counts = {
            "are crowds": int(t.crowd.sum()),
            "have a box and no mask": boxes,
            f"are smaller than {limits_in_words(min_area, min_side)}": int(tiny.sum()),
        }
        why = "".join(f", {n} {what}" for what, n in counts.items() if n)
        advice = (
            "DeepMask and SharpMask need masks (boxes are enough for train multipathnet)" if boxes else "add annotated pictures"
        )
        raise InputError(f"no object to learn from: {len(t)} instances in {len(dataset)} pictures{why}; {advice}")
    return rows


def limits_in_words(min_area: float, min_side: float) -> str:
    """What `usable_rows` asks of an object's size, and how to ask for less.

    Example:
        >>> limits_in_words(100, 5)
        '100 px of area or 5 px of side (--set min_area=100, --set min_side=5)'
    """
    return f"{min_area:g} px of area or {min_side:g} px of side (--set min_area={min_area:g}, --set min_side={min_side:g})"


def too_small(dataset: SceneDataset, *, min_area: float = 100, min_side: float = 5) -> str:
    """How many objects with a mask `usable_rows` leaves out, as a sentence; "" where it is none."""
    able = int((~dataset.instances.crowd & dataset.instances.masked).sum())
    if not (left := able - len(usable_rows(dataset, min_area=min_area, min_side=min_side))):
        return ""
    return f"{left:,} of {able:,} objects are left out, as they are smaller than {limits_in_words(min_area, min_side)}"


def rows_by_image(table: InstanceTable, count: int) -> list[np.ndarray]:
    """Of every picture the rows that are not empty."""
    rows = np.flatnonzero(table.area > 0)
    rows = rows[np.argsort(table.image[rows], kind="stable")]
    return np.split(rows, np.searchsorted(table.image[rows], np.arange(1, count)))
