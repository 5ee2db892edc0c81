"""`fairseg-lite evaluate`, `evaluate detections`, `bench` and `bench scale`: numbers about quality and about time."""

import argparse
import time
from collections.abc import Callable
from typing import Any

from fairseg_lite.cli.detect import Detector, add_detection
from fairseg_lite.cli.inputs import folders_of, open_dataset, output_folder, plain, proposer, write_json, write_picture
from fairseg_lite.cli.options import add, add_set, arguments, changed, command, device_of, dtype_of, positive
from fairseg_lite.errors import InputError

EVALUATE = """examples:
  fairseg-lite evaluate shapes shapes:100 -o result.json       the network that comes with the library
  fairseg-lite evaluate runs/photos/model.safetensors photos/valid -o result.json
  fairseg-lite evaluate runs/sharp/model.safetensors shapes:500 --boundary
Patch IoU: one centred patch per object, mask against mask. AR@N: share of objects found by the N best proposals of a
picture, averaged over IoU .50:.95 (COCO's definition, class-agnostic). --boundary: IoU of the pixels within d px of the true
boundary, and F-score of boundary pixels; for a SharpMask also of its coarse masks, one line under the other.
"""
DETECTIONS = """examples:
  fairseg-lite evaluate detections out/detections.json photos/valid -o result.json
  fairseg-lite evaluate detections runs/named/model.safetensors shapes:500 --set flip=true --set vote=.5 --figures out
RESULTS is a COCO result file, of `detect` or another program, or a MultiPathNet checkpoint that detects first. AP: average
precision, mean over categories and IoU .50:.95; AP50 and AP75: at one IoU (COCO's definition). Masks and boxes are judged each
by itself, where the results have them. Then what kinds of mistakes there are, and how much AP mending each would bring.
"""
BENCH = """examples:
  fairseg-lite bench                       ResNet-50, 640x480, 7 scales, 500 proposals: minutes
  fairseg-lite bench --quick               the small network on a small picture: seconds
  fairseg-lite bench --model multipathnet_resnet50   1,000 proposals of a picture, named
  fairseg-lite bench --peers               whole pictures, in turns with torchvision's Mask R-CNN and Faster R-CNN
"""
SCALE = """example:
  fairseg-lite bench scale out
Larger pictures, more proposals, more annotated pictures: OUT gets scale.png and scale.json. Growth 1: twice as much takes twice
as long. Minutes.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register all four."""
    p = command(commands, "evaluate", "patch IoU and average recall of a network", EVALUATE, _evaluate)
    p.add_argument("model", metavar="MODEL", help="shapes (comes with the library) or a checkpoint")
    _add_judged(p, "pictures.png, those that went best, median and worst, and edges.png, of a SharpMask before and after")
    p.add_argument("--top-k", type=positive, default=1000, metavar="N", help="proposals per picture (default: 1000)")
    p.add_argument("--boundary", action="store_true", help="measure the edges of the masks too, on the same patches")
    add_set(p, "of `propose`: nms=IOU, rerank=false, zoom=N (finer scales), max_side=PX, ...; of patches: min_area, min_side")
    add(p, "--precision", "--device")

    p = command(commands, "evaluate detections", "average precision of named objects, and mistakes", DETECTIONS, _detections)
    p.add_argument("results", metavar="RESULTS", help="COCO results (.json), or a MultiPathNet checkpoint")
    _add_judged(p, "confusion.png, what objects were taken for, and curve.png, AP against the IoU that it takes to be right")
    p.add_argument("--save", metavar="FILE", help="keep what a checkpoint detected, as COCO results")
    words = "detections of a category in a picture that count for AP (default: 100, COCO's)"
    p.add_argument("--max-dets", type=positive, default=100, metavar="N", help=words)
    add_detection(p)
    add(p, "--device")

    p = command(commands, "bench", "time and memory of each stage", BENCH, _bench)
    p.add_argument("--model", metavar="NAME", help="with random weights (default: deepmask_resnet50)")
    words = "beside torchvision's detectors, and deepmask-pytorch if a folder has it, in turns; the ratios with their spread"
    p.add_argument("--peers", nargs="?", const="", metavar="FOLDER", help=words)
    p.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="default: both")
    add_set(p, "width=PX, height=PX, scales=N, top_k=N, repeat=N (the fastest counts), batch=N")
    p.add_argument("--quick", action="store_true", help="small picture and network, one run: to see that it works")
    p.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    add(p, "--device")

    p = command(commands, "bench scale", "how time grows with what is asked", SCALE, _scale)
    p.add_argument("out", metavar="OUT", help="folder to write to")


def _add_judged(p: argparse.ArgumentParser, figures: str) -> None:
    add(p, "data")
    p.add_argument("-o", "--out", metavar="FILE", help="write all numbers as JSON")
    p.add_argument("--limit", type=positive, metavar="N", help="only the first N pictures: a quick look")
    p.add_argument("--figures", metavar="OUT", help=f"folder to draw in: {figures}")
    add(p, "--skip-faults")


LEAST = ("min_area", "min_side")  # of an object whose patch is measured
KINDS = {"segm": "masks", "bbox": "boxes"}


def _judged(a: argparse.Namespace) -> tuple:
    """(the data to measure on, how many pictures there would be without --limit)."""
    from fairseg_lite.data.scenes import Subset

    data = open_dataset(a.data, held_out=True, on_fault="skip" if a.skip_faults else "raise")
    if len(data) == 0:
        raise InputError(f"data {a.data!r} holds no picture; nothing to measure")
    return (Subset(data, range(a.limit)) if a.limit and a.limit < len(data) else data), len(data)


def _evaluate(a: argparse.Namespace) -> None:
    start, device = time.perf_counter(), device_of(a)
    folders_of(a.out)
    drawn = output_folder(a.figures) if a.figures else None
    from fairseg_lite.data.coco import to_coco
    from fairseg_lite.evaluation.patches import patch_report
    from fairseg_lite.evaluation.recall import average_recall
    from fairseg_lite.inference.propose import prepare, propose
    from fairseg_lite.plots.pictures import edges_of, extremes
    from fairseg_lite.training.shards import rank_and_world

    least = arguments([word for word in a.set if word[0] in LEAST], patch_report)
    of_propose = [word for word in a.set if word[0] not in LEAST]
    options = arguments(of_propose, propose, besides=("top_k", "refine", "dtype", "timer"))
    model, (data, total) = proposer(a.model, device), _judged(a)
    if data.instances.crowd.all():
        raise InputError(f"data {a.data!r} holds no object that could be found ({len(data.instances)} crowds)")
    first = rank_and_world()[0] == 0
    measured = _patches(model, data, boundary=a.boundary, **least) if first else {}
    fast = prepare(model, dtype=dtype_of(a.precision, device))
    results, seconds = _over(data, lambda scene: propose(fast, scene.image, top_k=a.top_k, **options))
    if not first:
        return
    truth = to_coco(data, progress=True)
    reports = {kind: average_recall(truth, results, iou_type=kind, progress=True) for kind in KINDS}
    _say({KINDS[kind]: report for kind, report in reports.items()})
    print(f"proposals  {len(data)} of {total} pictures, {seconds:.2f} s each")
    if drawn:
        write_picture(drawn / "pictures.png", extremes(data, truth, results))
        write_picture(drawn / "edges.png", edges_of(model, data, **least))
    numbers = {"seconds_per_picture": seconds, "seconds": time.perf_counter() - start}
    _keep(a, data, total, header=model.record.header(), **measured, recall=plain(reports), **numbers)


def _say(reports: dict) -> None:
    """A line for each."""
    print("\n".join(f"{name:10} {report}" for name, report in reports.items()))


def _keep(a: argparse.Namespace, data, total: int, **numbers: object) -> None:
    """Write the words of the command and the numbers that it gave, if that was asked for."""
    if a.out:
        words = {k: v for k, v in vars(a).items() if k not in ("run", "command", "debug", "set")} | {"set": dict(a.set)}
        named = {k: words.pop(k) for k in ("model", "results", "data") if k in words}
        write_json(a.out, {**named, "pictures": len(data), "of": total, "settings": words, **numbers}, indent=1)


def _patches(model, data, *, boundary: bool, **least: float) -> dict:
    """Measure masks on centred patches, and their edges if asked to."""
    from fairseg_lite.data.windows import too_small
    from fairseg_lite.evaluation.boundary import boundary_report
    from fairseg_lite.evaluation.patches import patch_report

    patches = patch_report(model, data, **least)
    _say({"patches": patches})
    if left := too_small(data, **least):
        print(f"           {left}")
    found = plain({"patches": patches})
    if boundary:
        stages = {"masks": model} | ({"coarse": model.deepmask} if hasattr(model, "deepmask") else {})
        edges = {name: boundary_report(network, data, padding=model.record.padding, **least) for name, network in stages.items()}
        _say({"boundary" if name == "masks" else name: report for name, report in edges.items()})
        found["boundary"] = plain(edges)
    return found


def _over(data, find: Callable, *ids) -> tuple[list[dict], float]:
    """COCO results of what is found in every scene, with ids of categories, and the seconds that finding took for each.

    Several processes share the scenes out; the first gets all results, the others none.
    """
    from tqdm.auto import tqdm

    from fairseg_lite.training.shards import collected, dealt, rank_and_world

    own, seconds = [], 0.0
    for i in tqdm(dealt(range(len(data))), unit="picture", delay=2, disable=rank_and_world()[0] > 0):
        scene = data[i]
        clock = time.perf_counter()
        found = find(scene)
        seconds += time.perf_counter() - clock
        own.append(found.to_coco(scene.image_id, *ids))
    return [row for rows in collected(own) for row in rows], seconds / max(len(own), 1)


def _detections(a: argparse.Namespace) -> None:
    device = device_of(a)
    folders_of(a.out, a.save)
    drawn = output_folder(a.figures) if a.figures else None
    from fairseg_lite.data.coco import to_coco
    from fairseg_lite.evaluation.errors import analyse_errors, confusion_matrix
    from fairseg_lite.evaluation.judge import most_objects
    from fairseg_lite.evaluation.precision import evaluate_detections
    from fairseg_lite.training.shards import rank_and_world

    data, total = _judged(a)
    truth = to_coco(data, progress=True)
    rows, seconds = _rows(a, data, truth, total, device)
    if rank_and_world()[0]:
        return
    masks = sum("segmentation" in r for r in rows)
    if (most := most_objects(truth)) > a.max_dets:
        print(
            f"a picture has {most} objects of a category; the best {a.max_dets} detections of it count (--max-dets {most}: more)"
        )
    if not rows:
        print(f"{a.results} holds no result: nothing is found")
    if 0 < masks < len(rows):
        print(f"{len(rows) - masks} of {len(rows)} results have no mask: boxes alone are judged")
    try:
        masked = any(a["segmentation"] for a in truth["annotations"])
        kinds = list(KINDS) if rows and masks == len(rows) and masked else ["bbox"]
        reports = {kind: evaluate_detections(truth, rows, kind, max_dets=a.max_dets, progress=True) for kind in kinds}
    except InputError as error:
        raise InputError(f"{a.results}: {error}") from error
    errors = {kind: analyse_errors(truth, rows, kind, max_dets=a.max_dets) for kind in kinds}
    table, names = confusion_matrix(truth, rows, kinds[-1])
    _say({KINDS[kind]: report for kind, report in reports.items()})
    for kind, report in reports.items():
        print(f"\n{KINDS[kind]}\n{report.table()}")
    for kind, report in errors.items():
        print(f"\n{KINDS[kind]}: {report}")
    print(f"\ndetections {len(rows)} in {len(data)} of {total} pictures" + (f", {seconds:.2f} s each" if seconds else ""))
    if drawn:
        from fairseg_lite.plots import confusion_table, precision_curve

        write_picture(drawn / "confusion.png", confusion_table(table, names, title="objects found with a score of .5 or more"))
        write_picture(drawn / "curve.png", precision_curve({KINDS[k]: report.by_threshold for k, report in reports.items()}))
    numbers = {"precision": plain(reports), "errors": plain(errors), "seconds_per_picture": seconds}
    _keep(a, data, total, confusion={"names": names, "table": table.tolist()}, **numbers)


def _rows(a: argparse.Namespace, data, truth: dict, total: int, device) -> tuple[list[dict], float | None]:
    """COCO results, read or of a checkpoint in the data's category ids, and the checkpoint's seconds per picture."""
    from fairseg_lite.training.shards import rank_and_world

    if a.results.lower().endswith(".json"):
        from fairseg_lite.data.results import read_results

        same = getattr(getattr(data, "dataset", data), "same_category", None)
        rows, known = read_results(a.results, truth["images"], same=same), {image["id"] for image in truth["images"]}
        return [r for r in rows if len(data) == total or r.get("image_id") in known], None
    detector = Detector(a, [a.results], device, truth["images"])
    ids = {c["name"]: c["id"] for c in truth["categories"]}
    lacking = [name for name in detector.categories if name not in ids]
    some = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
    if len(lacking) == len(detector.categories):
        raise InputError(f"{a.results!r} names {some}, none of which data {a.data!r} has; it has {', '.join(list(ids)[:10])}")
    if lacking:
        print(f"{a.results} names {len(lacking)} categories that are none of the data's, and are left out: {some}")
    rows, seconds = _over(
        data, lambda scene: detector(scene.image, scene.image_id), [ids.get(k, -1) for k in detector.categories]
    )
    found = [row for row in rows if row["category_id"] != -1], seconds
    if a.save and rank_and_world()[0] == 0:
        write_json(a.save, found[0])
    return found


def _bench(a: argparse.Namespace) -> None:
    device = device_of(a)
    folders_of(a.json)
    from fairseg_lite import bench

    if a.peers is not None:
        from fairseg_lite.bench.compare import peers, peers_report

        result: Any = peers(a.dtype, device, folder=a.peers, quick=a.quick)
        print(peers_report(result))
    else:
        chosen = bench.settings(quick=a.quick, **({"model": a.model} if a.model else {}))
        result = bench.run(changed(chosen, a.set), dtypes=a.dtype, device=device)
        print(bench.report(result))
    if a.json:
        write_json(a.json, result, indent=1)


def _scale(a: argparse.Namespace) -> None:
    out = output_folder(a.out)
    from fairseg_lite.bench.compare import scale, scale_report
    from fairseg_lite.plots import tradeoff

    rows = list(scale())
    print(scale_report(rows))
    lines: dict[str, list[tuple]] = {row["what"]: [] for row in rows}
    for row in rows:
        lines[row["what"]].append((row["n"], row["seconds"], ""))
    figure = tradeoff(lines, x="how many", y="seconds")
    axis = figure.axes[0]
    axis.set(xscale="log", yscale="log")
    for (n, seconds, _), *_, (last, *_) in lines.values():  # what growth 1 would be
        axis.plot([n, last], [seconds, seconds * last / n], ":", color="grey", linewidth=1)
    write_picture(out / "scale.png", figure)
    write_json(out / "scale.json", rows, indent=1)
