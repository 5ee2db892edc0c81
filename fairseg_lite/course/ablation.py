"""The paper's Table 1 on your own data: what each of the three ideas gains, over several seeds.

    runs/NAME-seed0/   one training: state, log, model.safetensors and, when it is measured, result.json
    table.txt, .json   mean and spread of what is measured so far
    settings.json      what all runs have in common; a folder takes runs of one kind only

A run with a result is never repeated, one that was interrupted goes on from its last checkpoint. All rows see the same
proposals, the same pictures in the same order (with the same seed) and the same number of steps.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.rois import pictures_of
from fairseg_lite.data.scenes import SceneCache, SceneDataset, content_key
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.precision import PrecisionReport, evaluate_detections
from fairseg_lite.geometry.files import short_hash, whole, write_json
from fairseg_lite.inference.detect import detect
from fairseg_lite.inference.propose import prepare
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.training.detector import train_multipathnet
from fairseg_lite.training.recipes import MultiPathRecipe

IDEAS = ("integral", "foveal", "skip")  # options of the network
HEAD = "box AP in per cent, mean +- deviation over seeds; gain: over the first row with the same seed"
MEASURES = ("ap50", "ap75", "ap", "small", "medium", "large")


class Row(NamedTuple):
    """One row of Table 1, left: which ideas are on, and what the paper measured on COCO."""

    name: str
    integral: bool
    foveal: bool
    skip: bool
    paper_ap50: float
    paper_ap: float


# MultiPath Table 1, left [papers 3.4]: DeepMask proposals, COCO val; per cent
TABLE_1 = (
    Row("fast-rcnn", False, False, False, 43.4, 25.2),
    Row("integral", True, False, False, 42.2, 25.6),
    Row("foveal", False, True, False, 45.2, 25.8),
    Row("integral-foveal", True, True, False, 44.4, 26.9),
    Row("foveal-skip", False, True, True, 46.4, 27.0),
    Row("multipathnet", True, True, True, 44.8, 27.9),
)


@dataclass(frozen=True)
class Result:
    """What one training gave on the held-out pictures, box AP."""

    row: str
    seed: int
    report: dict  # `asdict` of a PrecisionReport

    def value(self, measure: str) -> float | None:
        """Of "ap", "ap50", "ap75", "small", "medium" or "large", in per cent; None where there is no such object."""
        number = {**self.report, **self.report["by_area"]}[measure]
        return None if number is None else 100 * number


def measure(
    model: MultiPathNet, dataset: SceneDataset, boxes: Mapping[int, Boxes], *, truth: dict | None = None, progress: bool = False
) -> PrecisionReport:
    """Box AP of a network on the pictures of a data set.

    Args:
        model: in evaluation mode.
        dataset: scenes; a picture without proposals counts, with nothing found.
        boxes: proposals by picture id.
        truth: `to_coco(dataset)`, to save making it again.
        progress: show a bar when it takes more than 2 s.
    """
    found, model = {}, prepare(model)  # one layout, whether it was trained here or loaded
    for i in tqdm(pictures_of(dataset, boxes), desc="measuring", unit="picture", disable=not progress, delay=2, leave=False):
        scene = dataset[i]
        found[scene.image_id] = detect(model, scene.image, boxes[scene.image_id], masks=None)
    return evaluate_detections(truth or to_coco(dataset), found, "bbox")


def ablate(
    dataset: SceneDataset, boxes: Mapping[int, Boxes], valid: SceneDataset, valid_boxes: Mapping[int, Boxes], *,
    recipe: MultiPathRecipe, out: str | Path, seeds: int = 3, rows: Sequence[Row] = TABLE_1, about: dict | None = None,
    device: torch.device | str = "cpu", progress: bool = True, **start: Any,
) -> list[Result]:  # fmt: skip
    """Train and measure every row with every seed; call it again after an interruption.

    Args:
        dataset, boxes: to train on, as for `train_multipathnet`.
        valid, valid_boxes: to measure on.
        recipe: the same for all rows, but for the three switches and the seed.
        out: folder of all runs.
        seeds: 0, 1, ... of each row; more may be added later.
        rows: of the table, each under another name.
        about: what else has to be the same in this folder (names of data and proposals), in words that JSON can hold.
        progress: show bars.
        device, start: as for `train_multipathnet`.
    Returns: The results of these rows and seeds, in the order of the rows.
    Raises:
        InputError: the folder holds runs with other settings; or as `train_multipathnet`.
        KeyboardInterrupt: after Ctrl-C; what was trained is kept.
    Source: MultiPath Table 1. Lesson: 10.
    """
    out = Path(out)
    if seeds < 1 or not rows or len({r.name for r in rows}) < len(rows):
        raise InputError(f"{seeds} seeds and rows {[r.name for r in rows]}; wanted at least one of each, no name twice")
    hashes = {"training data": content_key(dataset), "training proposals": _boxes_key(boxes)}
    hashes |= {"data to measure on": content_key(valid), "proposals to measure on": _boxes_key(valid_boxes)}
    _same_settings(out, recipe, {**(about or {}), "hash": hashes})
    trained, scenes, truth = SceneCache(dataset), SceneCache(valid), None
    plan = [(row, seed) for seed in range(seeds) for row in rows]  # a table of few seeds is whole first
    for row, seed in tqdm(plan, desc="runs", unit="run", disable=not progress):
        folder = out / "runs" / f"{row.name}-seed{seed}"
        if (folder / "result.json").exists():
            continue
        if (path := folder / "model.safetensors").exists():  # trained, and not yet measured
            model = load_model(path, device=device, kind="MultiPathNet")
        else:
            options = {**recipe.options, **{idea: getattr(row, idea) for idea in IDEAS}}
            chosen = replace(recipe, options=options, fit=replace(recipe.fit, seed=seed))
            model, history = train_multipathnet(
                trained, boxes, recipe=chosen, out=folder, **start, device=device, resume=True, progress=progress
            )
            if not history.finished:
                raise KeyboardInterrupt(f"{folder} is kept at its last step; the same command goes on there")
        truth = truth or to_coco(scenes)
        report = measure(model, scenes, valid_boxes, truth=truth, progress=progress)
        write_json(folder / "result.json", asdict(Result(row.name, seed, asdict(report))), indent=1)
        (folder / "state.safetensors").unlink(missing_ok=True)  # the network is in model.safetensors
        write_table(out, rows, seeds)
    return write_table(out, rows, seeds)


def results_in(out: str | Path, rows: Sequence[Row] = TABLE_1, seeds: int = 10**6) -> list[Result]:
    """The results that a folder holds, in the order of rows, then of seeds.

    Raises: InputError, one of them cannot be read.
    """
    found = []
    for row in rows:
        for path in sorted((Path(out) / "runs").glob(f"{row.name}-seed*/result.json")):
            try:
                result = Result(**json.loads(path.read_text("utf-8")))
                _ = [result.value(m) for m in MEASURES]
            except (OSError, ValueError, TypeError, LookupError) as error:
                raise InputError(f"{str(path)!r} is no result of this version ({error}); delete it to measure again") from error
            if result.seed < seeds:
                found.append(result)
    return sorted(found, key=lambda r: ([row.name for row in rows].index(r.row), r.seed))


def summary(rows: Sequence[Row], results: Sequence[Result]) -> list[dict]:
    """Each row's mean, deviation and values over seeds, and its gain over the first row.

    Returns: A dict for each row that has a result: its fields, "seeds", by measure {"mean", "std", "values"} in per cent, and
        "gain": the mean and deviation of the differences to the first row *with the same seed*, which are smaller than those of
        the values. A deviation of one value is None.
    """
    by = {(r.row, r.seed): r for r in results}
    table = []
    for row in rows:
        seeds = sorted(s for name, s in by if name == row.name)
        if not seeds:
            continue
        entry: dict = {**row._asdict(), "seeds": seeds, "gain": {}}
        for m in MEASURES:
            entry[m] = _spread([by[row.name, s].value(m) for s in seeds])
            pairs = [(by[row.name, s].value(m), by[rows[0].name, s].value(m)) for s in seeds if (rows[0].name, s) in by]
            entry["gain"][m] = _spread([a - b for a, b in pairs if a is not None and b is not None])
        table.append(entry)
    return table


def table(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """The summary for people, in the layout of Table 1, the paper's numbers beside ours."""
    name = {"ap50": "AP50", "ap75": "AP75", "ap": "AP"}
    head = f"{'integral':>8}{'foveal':>8}{'skip':>6}" + "".join(f"{name.get(m, m):>12}" for m in MEASURES)
    lines = [head + f"{'gain AP':>12}{'runs':>6}{'paper AP50':>12}{'AP':>6}{'gain':>6}"]
    for e in summary(rows, results):
        marks = "".join(f"{'x' if e[idea] else '':>{w}}" for idea, w in zip(IDEAS, (8, 8, 6), strict=True))
        values = "".join(f"{_shown(e[m]):>12}" for m in MEASURES)
        gain = _shown(e["gain"]["ap"], sign=True) if e["name"] != rows[0].name else ""
        paper = f"{e['paper_ap50']:12.1f}{e['paper_ap']:6.1f}{e['paper_ap'] - rows[0].paper_ap:+6.1f}"
        lines.append(f"{marks}{values}{gain:>12}{len(e['seeds']):6}{paper}")
    return "\n".join(lines)


def write_table(out: Path, rows: Sequence[Row], seeds: int) -> list[Result]:
    """`table.txt` and `table.json` of what is measured so far, which it gives."""
    found = results_in(out, rows, seeds)
    with whole(out / "table.txt") as part:
        part.write_text(f"{HEAD}\n{table(rows, found)}\n", "utf-8")
    write_json(out / "table.json", summary(rows, found), indent=1)
    return found


def _spread(values: list[float | None]) -> dict:
    known = [v for v in values if v is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": values,
    }


def _shown(spread: dict, *, sign: bool = False) -> str:
    if spread["mean"] is None:
        return "-"
    return format(spread["mean"], "+.1f" if sign else ".1f") + ("" if spread["std"] is None else f" +-{spread['std']:.1f}")


def _same_settings(out: Path, recipe: MultiPathRecipe, about: dict) -> None:
    """Keep what all runs of a folder have in common, or hold it against what is kept there."""
    path, numbers = out / "settings.json", asdict(recipe)
    del numbers["fit"]["seed"], numbers["fit"]["workers"]  # workers make the same batches
    settings = {"recipe": numbers, "about": about}
    if not path.exists():
        write_json(path, settings, indent=1)
    try:
        held = _flat(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); choose another folder") from error
    wanted = _flat(json.loads(json.dumps(settings)))  # tuples become lists, as they come back
    for key in sorted(held.keys() | wanted.keys()):
        if held.get(key) != wanted.get(key) and (key in held or not key.startswith("about.hash.")):  # older folders have none
            raise InputError(
                f"{str(out)!r} holds runs with {key} = {held.get(key)!r}, now it is {wanted.get(key)!r}: they cannot stand in "
                "one table; choose another folder, or the settings of before"
            )


def _boxes_key(boxes: Mapping[int, Boxes]) -> str:
    return short_hash(*(part for key in sorted(boxes) for part in (key, *(x.cpu().numpy().tobytes() for x in boxes[key]))))


def _flat(content: object, name: str = "") -> dict:
    if not isinstance(content, dict) or not content:
        return {name: content}
    return {k: v for key, value in content.items() for k, v in _flat(value, f"{name}.{key}".strip(".")).items()}
