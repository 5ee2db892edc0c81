"""`fairseg-lite propose`: masks for pictures; `export`: the network without Python."""

import argparse
from pathlib import Path

from fairseg_lite.cli.inputs import folders_of, over_pictures, picture_name, pictures_and_output, proposer, write_picture
from fairseg_lite.cli.options import add, add_set, arguments, command, device_of, dtype_of, positive
from fairseg_lite.errors import InputError

PROPOSE = """examples:
  fairseg-lite propose holiday.jpg -o out                          the network that comes with the library
  fairseg-lite propose photos/valid -o out --model runs/photos/model.safetensors --top-k 1000 --draw 20
OUT gets NAME.png for each picture, its best masks drawn in, and proposals.json, all masks as COCO results: image_id is
that of the folder's COCO annotations if there are some, else 1, 2, ... by name; file_name is added. A damaged picture
is named and left out, and the exit code is 2. Ctrl-C keeps what was done.
"""
EXPORT = """examples:
  fairseg-lite export photos-sharp -o sharp.onnx             for ONNX Runtime: needs the extra fairseg-lite[onnx]
  fairseg-lite export photos-sharp -o sharp.pt2 --top-k 50   for torch.export.load
In: picture, uint8 (H, W, 3), RGB, H and W multiples of 16. Out: masks (N, M, M), boxes (N, 4) and scores (N) of the N best
windows at this one scale; for others call it with the picture resized. A mask belongs into its box, px.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `propose` and `export`."""
    p = command(commands, "propose", "masks for a picture or a folder of pictures", PROPOSE, _propose)
    p.add_argument("input", metavar="PICTURE", help="a picture, or a folder of them")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder to write to")
    p.add_argument("--model", default="photos-sharp", metavar="M", help="a checkpoint (default: photos-sharp, of the library)")
    p.add_argument("--top-k", type=positive, default=100, metavar="N", help="proposals per picture (default: 100)")
    p.add_argument("--draw", type=int, default=10, metavar="N", help="masks drawn in; 0: no pictures (default: 10)")
    p.add_argument("--coarse", action="store_true", help="of a SharpMask: the masks before refinement")
    add_set(
        p,
        "nms=IOU, max_side=PX (1024: larger are reduced), zoom=N (more scales, for small objects), threshold=P, scales=S,...",
    )
    add(p, "--precision", "--device")

    p = command(commands, "export", "write a network as ONNX or for torch.export", EXPORT, _export)
    p.add_argument("model", metavar="MODEL", help="a DeepMask or SharpMask: photos-sharp, photos or a checkpoint")
    p.add_argument("--out", "-o", required=True, metavar="FILE", help="NAME.onnx or NAME.pt2")
    p.add_argument("--top-k", type=positive, default=100, metavar="N", help="masks of a picture (default: 100)")


def _export(a: argparse.Namespace) -> None:
    folders_of(a.out)
    from fairseg_lite.inference.export import export

    export(proposer(a.model, "cpu"), a.out, top_k=a.top_k)
    print(f"{a.out} written, {Path(a.out).stat().st_size / 1e6:.1f} MB")


def _propose(a: argparse.Namespace) -> int:
    if a.draw < 0:
        raise InputError(f"--draw is {a.draw}; it must be 0 or more")
    device, pictures, out = device_of(a), *pictures_and_output(a)

    from fairseg_lite.inference.propose import prepare, propose
    from fairseg_lite.training.shards import collected

    options = arguments(a.set, propose, besides=("top_k", "refine", "dtype", "timer"))
    options |= {"top_k": a.top_k, "refine": not a.coarse}
    model = prepare(proposer(a.model, device), dtype=dtype_of(a.precision, device))
    short: list[str] = []

    def work(one, image) -> list[dict]:
        found = propose(model, image, **options)
        if len(found) < a.top_k and "nms" not in options:
            short.append(f"{one.name}: {len(found)}")
        if a.draw:
            write_picture(out / picture_name(one, pictures), drawn(image, found, a.draw))
        return found.to_coco(one.id)

    code = over_pictures(pictures, work, out, "proposals", drawn=f"the best {a.draw}" if a.draw else "")
    if short := collected(short):
        print(f"fewer than the {a.top_k} asked for in {len(short)} of {len(pictures)} pictures (first: {short[0]}): there are "
              "no more windows at these scales with a mask that is not empty")  # fmt: skip
    return code


def drawn(image, found, count: int):
    """The picture with its best masks, none of which lies on another; only those that are half as sure as the surest."""
    from fairseg_lite.data.scenes import Masks
    from fairseg_lite.plots import apart, tinted

    sure = found[found.scores >= found.scores.amax() / 2] if len(found) else found
    masks = Masks(sure.rle, *image.shape[:2])
    return tinted(image, (masks[i] for i in apart(masks, count)))
