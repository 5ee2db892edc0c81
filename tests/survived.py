"""What was tried to make the library lose something or fall over, and how often it did not: a table.

python -m tests.survived            in short, as CI does
python -m tests.survived --full     50 kills, 10,000 damaged files of each kind; a quarter of an hour
python -m tests.survived --only NAME ...
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.robust import Count, accidents, damage

TRIALS: dict[str, tuple[Callable[[int, Path], Count], int, int]] = {  # name: (trial, how often in short, and in full)
    "training killed (SIGKILL) at a random moment, resumed to the last bit": (accidents.training_killed, 3, 20),
    "proposing killed, continued": (accidents.proposing_killed, 3, 15),
    "evaluation killed, run again": (accidents.evaluation_killed, 2, 15),
    "a disk that is full": (accidents.full_disk, 1, 1),
    "a folder that is read-only": (accidents.read_only, 1, 1),
    "two runs in one folder": (accidents.two_runs, 2, 2),
    "a clock that jumps by years": (accidents.clock_jumps, 1, 10),
    "a batch with NaN or infinity": (accidents.numbers_that_are_none, 2, 20),
    "pictures that turn out damaged in mid-epoch": (accidents.pictures_that_go_bad, 4, 4),
    "file names that lead out of a folder": (damage.traversal, 1, 1),
    "decompression bombs": (damage.bombs, 1, 1),
    "garbage where JSON is expected, in MB": (damage.garbage, 1, 1024),
    "damaged Torch7 files": (damage.torch7, 200, 10_000),
    "damaged annotations": (damage.annotations, 200, 10_000),
    "damaged result files": (damage.results, 200, 10_000),
    "damaged checkpoints": (damage.checkpoints, 100, 10_000),
    "damaged pictures": (damage.pictures, 300, 10_000),
    "boxes, masks, RLE and samplers, drawn by hypothesis": (damage.properties, 2, 5),
}


def tried(name: str, *, full: bool = False) -> Count:
    trial, short, long = TRIALS[name]
    with tempfile.TemporaryDirectory() as folder:
        return trial(long if full else short, Path(folder))


def row(name: str, count: Count) -> str:
    return f"| {name} | {count.tried:,} | {count.survived:,} |"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true")
    p.add_argument("--only", nargs="+", default=list(TRIALS), metavar="NAME", help="trials whose name has one of these in it")
    a = p.parse_args()
    print("| what | tried | survived |\n|---|---|---|")
    lost = 0
    for name in TRIALS:
        if any(word in name for word in a.only):
            start = time.perf_counter()
            count = tried(name, full=a.full)
            print(row(name, count), flush=True)
            print(f"{time.perf_counter() - start:.0f} s", *count.faults[:5], sep="\n  ", file=sys.stderr, flush=True)
            lost += count.tried - count.survived
    return min(lost, 1)


if __name__ == "__main__":
    sys.exit(main())
