"""`fairseg-lite bench` and `bench scale`: numbers about time."""

import argparse
from typing import Any

from fairseg_lite.cli.inputs import folders_of, output_folder, write_json, write_picture
from fairseg_lite.cli.options import add, add_set, changed, command, device_of

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
    """Register both."""
    p = command(commands, "bench", "time and memory of each stage", BENCH, _bench)
    p.add_argument("--model", metavar="NAME", help="with random weights (default: deepmask_resnet50)")
    p.add_argument("--peers", action="store_true", help="beside torchvision's detectors, in turns; the ratios with their spread")
    p.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="default: both")
    add_set(
        p,
        "against=NAME (another one, in turns), width=PX, height=PX, scales=N, top_k=N, repeat=N (the fastest counts), batch=N",
    )
    p.add_argument("--quick", action="store_true", help="small picture and network, one run: to see that it works")
    p.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    add(p, "--device")

    p = command(commands, "bench scale", "how time grows with what is asked", SCALE, _scale)
    p.add_argument("out", metavar="OUT", help="folder to write to")


def _bench(a: argparse.Namespace) -> None:
    device = device_of(a)
    folders_of(a.json)
    from fairseg_lite import bench

    if a.peers:
        from fairseg_lite.bench.compare import peers, peers_report

        result: Any = peers(a.dtype, device, quick=a.quick)
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
