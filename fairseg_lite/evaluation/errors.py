"""What kind of mistakes a detector makes, and what each kind costs.

At one IoU threshold (.5) a detection is right, or it is wrong in the first of these ways that fits:

    duplicate      on an object of its category that a better-scored detection has taken
    confusion      on an object of another category
    localisation   near an object of its category, at an IoU from .1 up to the threshold
    background     near nothing of the kind

And an object is *missed* that no detection found, nor confused, nor badly localised. What a kind costs is the average
precision that mending it alone would bring: a confused detection gets the right name, a badly localised one the right box (it
goes if the object is found already), duplicates and background go, missed objects are no longer asked for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.judge import MAX_DETS, overlaps, results_of, truth_of
from fairseg_lite.evaluation.precision import CocoResults, average_precision, categories_of, rows_of

KINDS = ("localisation", "confusion", "duplicate", "background", "missed")
NEAR = 0.1  # IoU below which a detection has nothing to do with an object


class Verdict(NamedTuple):
    """What a detection is."""

    score: float
    category: int
    kind: str  # "right", "ignored" (on a crowd), or one of KINDS but "missed"
    target: int | None  # id of the object it found, confused or nearly found


@dataclass(frozen=True)
class ErrorReport:
    """Mistakes of a detector; `dataclasses.asdict` of it is ready for JSON."""

    iou_type: str
    threshold: float  # IoU from which on an object is found
    instances: int  # objects to find
    ap: float  # at that threshold
    counts: dict[str, int]  # by kind; of each category as many of its best detections as it has objects. "missed": objects
    right: int  # of the same detections
    gains: dict[str, float]  # kind -> AP that mending it alone would bring

    def __str__(self) -> str:
        wrong = {kind: n for kind, n in self.counts.items() if kind != "missed"}
        total, shares = self.right + sum(wrong.values()), ", ".join(f"{kind} {n}" for kind, n in wrong.items())
        gains = ", ".join(f"{kind} +{gain:.3f}" for kind, gain in self.gains.items())
        return (
            f"of the best {total} detections {self.right} right, {shares}; {self.counts['missed']} of {self.instances} "
            f"objects missed; AP{100 * self.threshold:.0f} {self.ap:.3f}, mending {gains}"
        )


def analyse_errors(
    dataset: SceneDataset | dict, detections: Mapping[int, CocoResults] | Sequence[dict], what: str = "bbox", *,
    threshold: float = 0.5, max_dets: int = MAX_DETS,
) -> ErrorReport:  # fmt: skip
    """Sort the mistakes of a detector by kind.

    Args:
        dataset, detections, what, max_dets: as for `evaluate_detections`.
        threshold: IoU from which on an object is found, above .1.
    Returns: ErrorReport; its AP is that of `evaluate_detections` at the same threshold.
    Raises: InputError, a threshold outside (.1, 1], or as `evaluate_detections`.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> truth = to_coco(ShapesDataset(2))
        >>> report = analyse_errors(truth, [{**a, "score": 1.0} for a in truth["annotations"][1:]])
        >>> report.counts["missed"], round(report.ap + report.gains["missed"], 6)
        (1, 1.0)

    Source: Hoiem et al., ECCV 2012; mending: TIDE, Bolya et al., ECCV 2020, without its sixth kind (another category and badly
        localised), which is background here. Lesson: 11.
    """
    if not NEAR < threshold <= 1:
        raise InputError(f"threshold is {threshold}; an IoU above {NEAR} and at most 1 is wanted")
    _, objects, pictures = _prepared(dataset, detections, what)
    verdicts: list[Verdict] = []
    for image, truths, rows in pictures:
        verdicts += _verdicts(truths, rows, overlaps(rows, truths, image, what), threshold, max_dets)
    verdicts.sort(key=lambda v: -v.score)
    category_of = {o["id"]: o["category_id"] for o in objects if not o["iscrowd"]}
    totals = Counter(category_of.values())
    hit = {v.target for v in verdicts if v.kind == "right"}
    missed = set(category_of) - {v.target for v in verdicts}

    def precision(kind: str | None) -> float:
        """Mean over the categories, with one kind of mistake mended."""
        taken = set(hit)
        ranked: dict[int, list[bool]] = {c: [] for c in totals}
        for v in verdicts:
            if v.kind == kind and kind in ("confusion", "localisation"):
                if v.target not in taken:
                    taken.add(v.target)
                    ranked[category_of[v.target]].append(True)
            elif v.kind not in (kind, "ignored") and v.category in ranked:
                ranked[v.category].append(v.kind == "right")
        left = totals - Counter(category_of[m] for m in missed) if kind == "missed" else totals
        return float(np.mean([average_precision(ranked[c], left[c]) if left[c] else 1.0 for c in totals]))

    ap, places = precision(None), Counter(totals)
    best: Counter[str] = Counter()
    for v in verdicts:
        if v.kind != "ignored" and places[v.category] > 0:
            places[v.category] -= 1
            best[v.kind] += 1
    counts = {kind: best[kind] for kind in KINDS} | {"missed": len(missed)}
    gains = {kind: precision(kind) - ap for kind in KINDS}
    return ErrorReport(what, threshold, len(category_of), ap, counts, best["right"], gains)


def confusion_matrix(
    dataset: SceneDataset | dict, detections: Mapping[int, CocoResults] | Sequence[dict], what: str = "bbox", *,
    score: float = 0.5,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """What objects are taken for.

    Every detection, best first, takes the free object that it overlaps most, of whatever category, at an IoU of .5 or more; each
    object is taken once.

    Args:
        dataset, detections, what: as for `evaluate_detections`.
        score: only detections from this score on.
    Returns: (K + 1, K + 1) int64: rows true categories, then nothing (background); columns detected categories, then nothing
        (missed). And the K names.
    Raises: InputError as `evaluate_detections`.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> truth = to_coco(ShapesDataset(2))
        >>> table, names = confusion_matrix(truth, [{**a, "score": 1.0} for a in truth["annotations"][1:]])
        >>> int(np.trace(table)) == len(truth["annotations"]) - 1, int(table[:, -1].sum()), len(names)
        (True, 1, 9)

    Lesson: 11.
    """
    names, _, pictures = _prepared(dataset, detections, what)
    place = {c: i for i, c in enumerate(names)}
    table, nothing = np.zeros((len(names) + 1, len(names) + 1), np.int64), len(names)
    for image, truths, rows in pictures:
        rows = [r for r in rows if r["score"] >= score]
        iou = overlaps(rows, truths, image, what)
        crowd = np.array([t["iscrowd"] for t in truths], bool)
        free = ~crowd
        for r, row in enumerate(rows):
            i = _best(iou[r], free, 0.5)
            if i is not None:
                free[i] = False
                table[place[truths[i]["category_id"]], place[row["category_id"]]] += 1
            elif _best(iou[r], crowd, 0.5) is None:
                table[nothing, place[row["category_id"]]] += 1
        for i in np.flatnonzero(free).tolist():
            table[place[truths[i]["category_id"]], nothing] += 1
    return table, list(names.values())


def _prepared(dataset, detections, what: str) -> tuple[dict[int, str], list[dict], list[tuple]]:
    """Names by category id, objects; and picture by picture its entry, objects, and results with the best first."""
    truth = dataset if isinstance(dataset, dict) else to_coco(dataset)
    images, objects = truth_of(truth, what, by_category=True)
    names = categories_of(truth)
    found = results_of(images, rows_of(detections, list(names)), what, categories=names)
    pictures: dict[int, tuple[dict, list, list]] = {i: (image, [], []) for i, image in images.items()}
    for o in objects:
        pictures[o["image_id"]][1].append(o)
    for row in sorted(found, key=lambda r: -r["score"]):
        pictures[row["image_id"]][2].append(row)
    return names, objects, list(pictures.values())


def _best(iou: np.ndarray, able: np.ndarray, threshold: float) -> int | None:
    """The object that overlaps most, of those that are able to be found; of equals the last, as COCO's judge."""
    fit = np.flatnonzero(able & (iou >= min(threshold, 1 - 1e-10)))
    return int(fit[iou[fit] == iou[fit].max()][-1]) if len(fit) else None


def _verdicts(truths: list[dict], rows: list[dict], iou: np.ndarray, threshold: float, max_dets: int) -> list[Verdict]:
    """What each detection of a picture is; rows with the best first, iou (rows, truths)."""
    category = np.array([t["category_id"] for t in truths])
    crowd = np.array([t["iscrowd"] for t in truths], bool)
    free, verdicts = ~crowd, []
    seen: Counter[int] = Counter()
    for r, row in enumerate(rows):
        seen[row["category_id"]] += 1
        if seen[row["category_id"]] > max_dets:
            continue
        own = category == row["category_id"]
        tests = (
            ("right", own & free, threshold),
            ("ignored", own & crowd, threshold),
            ("duplicate", own & ~crowd, threshold),
            ("confusion", ~own & ~crowd, threshold),
            ("localisation", own & ~crowd, NEAR),
        )
        kind, target = "background", None
        for name, able, least in tests:
            i = _best(iou[r], able, least)
            if i is not None:
                kind, target = name, None if name == "ignored" else truths[i]["id"]
                free[i] &= name != "right"
                break
        verdicts.append(Verdict(row["score"], row["category_id"], kind, target))
    return verdicts
