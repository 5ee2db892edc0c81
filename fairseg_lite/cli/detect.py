"""`fairseg-lite detect`: named objects in pictures; and the options that every command with a detector takes."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

from fairseg_lite.cli.inputs import over_pictures, picture_name, pictures_and_output, proposer, write_picture
from fairseg_lite.cli.options import add, add_set, arguments, command, device_of, dtype_of, positive
from fairseg_lite.errors import InputError

COVERED = 0.7  # share of a mask that may lie on surer ones, where it is drawn
DETECT = """examples:
  fairseg-lite detect holiday.jpg -o out --model runs/named/model.safetensors --proposer runs/sharp/model.safetensors
  fairseg-lite detect photos/valid -o out --model runs/named/model.safetensors --proposals out/proposals.json --set flip=true
OUT gets NAME.png for each picture, the surest objects drawn in with mask, box and name, and detections.json: COCO results with
the category ids of the data the network was trained on. image_id is that of the folder's COCO annotations if there are some,
else 1, 2, ... by name; file_name is added. A damaged picture is named and left out, and the exit code is 2.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `detect`."""
    p = command(commands, "detect", "named objects in a picture or a folder of pictures", DETECT, _detect)
    p.add_argument("input", metavar="PICTURE", help="a picture, or a folder of them")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder to write to")
    p.add_argument(
        "--model", nargs="+", default=["photos-multipath"], metavar="M",
        help="a MultiPathNet checkpoint, or several: an ensemble (default: photos-multipath, of the library)",
    )  # fmt: skip
    words = "draw and list objects from this score on; 1: no pictures (default: 0.5)"
    p.add_argument("--draw", type=float, default=0.5, metavar="P", help=words)
    add_detection(p)
    add(p, "--device")


def add_detection(p: argparse.ArgumentParser) -> None:
    """Where proposals come from, and what is done with them at test time."""
    p.add_argument("--proposer", metavar="M", help="checkpoint that proposes (default: the one that MODEL was trained with)")
    p.add_argument("--proposals", metavar="FILE", help="COCO results instead, from `propose` or another program")
    p.add_argument("--top-k", type=positive, default=200, metavar="N", help="proposals per picture (default: 200)")
    p.add_argument(
        "--masks", choices=("proposal", "refined", "none"),
        help="of the proposal, made anew for the final box, or none (default: refined; with --proposals: proposal)",
    )  # fmt: skip
    words = "score_threshold=P, nms=IOU, prune=IOU (of proposals), short_side=PX, and the paper's additions: flip=true, "
    add_set(p, words + "vote=IOU, iterations=N, crops=N, mask_boxes=true")
    add(p, "--precision")


class Detector:
    """Networks and options of a command line: called with a picture and its id, it gives Detections.

    Args:
        a: with the options of `add_detection`.
        names: MultiPathNet checkpoints.
        device: torch's.
        images: COCO entries of the pictures that will come: proposals from a file must be of some of them.
    Raises: InputError, a checkpoint of another kind, an ensemble of unlike categories, proposals of other pictures, boxes of
        masks that are not drawn.
    """

    def __init__(self, a: argparse.Namespace, names: Sequence[str], device, images: Sequence[dict]):
        from fairseg_lite.data.results import Boxes, load_boxes
        from fairseg_lite.inference.detect import detect
        from fairseg_lite.inference.found import load_results
        from fairseg_lite.inference.propose import prepare
        from fairseg_lite.models.checkpoints import load_model

        self.options = arguments(a.set, detect, besides=("proposer", "masks", "timer"))
        dtype = dtype_of(a.precision, device)
        self.models = [prepare(load_model(name, device=device, kind="MultiPathNet"), dtype=dtype) for name in names]
        self.categories, self.category_ids = categories_of(self.models[0])
        for name, model in zip(names, self.models, strict=True):
            if (other := categories_of(model)) != (self.categories, self.category_ids):
                raise InputError(
                    f"{names[0]!r} names {', '.join(self.categories)}, {name!r} {', '.join(other[0])}; an ensemble needs the same"
                )
        masks = a.masks or ("proposal" if a.proposals else "refined")
        if self.options.get("mask_boxes") and masks != "refined":
            raise InputError("mask_boxes takes boxes from refined masks: add --masks refined, and --proposer, which draws them")
        self.masks, self.top_k, self.proposer = (None if masks == "none" else masks), a.top_k, None
        if not a.proposals or self.masks == "refined":
            name = a.proposer or self.models[0].record.proposals or "photos-sharp"
            self.proposer = prepare(proposer(name, device), dtype=dtype)
        self.known = None
        if a.proposals:
            if self.masks == "proposal":
                self.known = {i: found[: a.top_k] for i, found in load_results(a.proposals, images).items()}
            else:
                self.known = {i: Boxes(*(x[: a.top_k] for x in found)) for i, found in load_boxes(a.proposals, images).items()}
            ids = {image["id"] for image in images}
            if not set(self.known) & ids:
                some = ", ".join(map(str, sorted(self.known)[:5])) + " ..." if self.known else "none"
                raise InputError(
                    f"proposals {a.proposals!r} are of pictures {some}, and none of the {len(ids)} here is among them; were they "
                    "made for other pictures?"
                )
            if lacking := len(ids - set(self.known)):
                print(f"fairseg-lite: no proposals for {lacking} of {len(ids)} pictures; nothing is found there", file=sys.stderr)

    def __call__(self, image, image_id: int):
        from fairseg_lite.inference.detect import Detections, detect
        from fairseg_lite.inference.propose import propose

        if self.known is None:
            proposals = propose(self.proposer, image, top_k=self.top_k)
        elif image_id not in self.known:
            return Detections.none(image.shape[:2], masks=self.masks is not None)
        else:
            proposals = self.known[image_id]
        return detect(self.models, image, proposals, proposer=self.proposer, masks=self.masks, **self.options)


def categories_of(model) -> tuple[list[str], list[int]]:
    """Names and ids of the categories that a checkpoint remembers; "1", "2", ... where it remembers none."""
    count, record = range(1, model.num_classes + 1), model.record
    return list(record.categories) or list(map(str, count)), list(record.category_ids) or list(count)


def drawn(image, found, categories: Sequence[str], least: float):
    """The picture with the surest objects named."""
    from fairseg_lite.data.scenes import Masks
    from fairseg_lite.plots import apart, named

    some = found[found.scores >= least]
    if some.rle is not None:
        some = some[apart(Masks(some.rle, *some.size), len(some.scores), shared=COVERED)]
    masks = None if some.rle is None else Masks(some.rle, *some.size)
    return named(image, some.boxes.numpy(), named_in(some, categories), some.labels.tolist(), masks)


def named_in(found, categories: Sequence[str]) -> list[str]:
    """ "cat 0.97" for each object."""
    return [f"{categories[k]} {s:.2f}" for k, s in zip(found.labels.tolist(), found.scores.tolist(), strict=True)]


def _detect(a: argparse.Namespace) -> int:
    if not 0 <= a.draw <= 1:
        raise InputError(f"--draw is {a.draw}; it is a probability, from 0 to 1")
    device, pictures, out = device_of(a), *pictures_and_output(a)
    detector: Callable = Detector(a, a.model, device, [one.entry() for one in pictures])
    table, listed, surest = defaultdict(list), [], []

    def work(one, image) -> list[dict]:
        found = detector(image, one.id)
        surest.extend(named_in(found[:1], detector.categories))
        if a.draw < 1:
            write_picture(out / picture_name(one, pictures), drawn(image, found, detector.categories, a.draw))
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True):
            if score >= a.draw:
                table[label].append(score)
                listed.append((detector.categories[label], score, box))
        return found.to_coco(one.id, detector.category_ids)

    shown = f"those from a score of {a.draw:g} on" if a.draw < 1 else ""
    code = over_pictures(pictures, work, out, "detections", drawn=shown)
    if "shapes-multipath" in a.model:
        print("shapes-multipath has learnt made-up shapes: its names of photographs mean nothing; train one that names yours")
    width = max([8, *(len(detector.categories[k]) for k in table)])
    if len(pictures) == 1:
        print(f"{'name':{width}}{'score':>7}   box: left, top, right, bottom, px")
        for name, score, box in listed:
            print(f"{name:{width}}{score:7.2f}   " + " ".join(f"{v:7.1f}" for v in box))
        if surest and not listed:
            print(f"nothing is that sure; the surest: {surest[0]}. A lower --draw draws and lists it")
    else:
        print(f"{'name':{width}}{'objects':>9}{'mean score':>12}")
        for label, scores in sorted(table.items(), key=lambda item: -len(item[1])):
            print(f"{detector.categories[label]:{width}}{len(scores):9}{sum(scores) / len(scores):12.2f}")
    return code
