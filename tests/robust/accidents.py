"""Accidents while the library is at work: killed, a full or locked disk, a clock that jumps, pictures and numbers that go bad."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from fairseg_lite.cli import main
from fairseg_lite.data.coco import write_coco_folder
from fairseg_lite.data.patches import PatchSampler
from fairseg_lite.data.pictures import load_image
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.checkpoints import load_model, load_tensors
from fairseg_lite.training import detector
from fairseg_lite.training.recipes import RECIPES
from fairseg_lite.training.stages import train_deepmask
from tests.robust import Count

SMALL = ["--set", "positives=3", "--set", "negatives=1", "--set", "options.features=8", "--set", "fit.precision=fp32"]


def train(out: Path, steps: int, *more: str, data: str = "shapes:6") -> list[str]:
    often = [f"--set=fit.{word}" for word in ("save_every=3", "log_every=1", "schedule=constant", "warmup=0")]
    return ["train", "deepmask", data, "--out", str(out), "--steps", str(steps), "--device", "cpu", *SMALL, *often, *more]


def evaluate(out: Path) -> list[str]:
    return ["evaluate", "shapes", "shapes:2", "--top-k", "5", "--set", "scales=1", "-o", str(out / "e.json"), "--device", "cpu"]


def said(words: list[str]) -> tuple[int, str]:
    """A command's exit code, and what it said to the person."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    return code, err.getvalue()


def child(work: Callable[[], object]) -> multiprocessing.Process:
    """Do something in a process of its own that says nothing and ends with the exit code of its work."""

    def quietly() -> None:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os._exit(int(work() or 0))  # no clean-up of the process it was forked from

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    return process


def unreadable(folder: Path) -> list[str]:
    """Files that someone would take for whole and that are not; a log may lack the end of its last line."""
    bad = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            if path.suffix == ".safetensors":
                load_tensors(path)
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".jsonl":
                for line in path.read_text("utf-8").split("\n")[:-1]:
                    json.loads(line)
            elif path.suffix == ".png":
                load_image(path)
        except ValueError as error:
            bad.append(f"{path.name}: {error}")
    return bad


def same_run(one: Path, two: Path) -> bool:
    (a, header), (b, other) = (load_tensors(f / "state.safetensors") for f in (one, two))
    logs = [[json.loads(line) | {"rate": 0} for line in (f / "log.jsonl").read_text("utf-8").splitlines()] for f in (one, two)]
    return header["step"] == other["step"] and logs[0] == logs[1] and all(torch.equal(a[k], b[k]) for k in a | b)


def same_files(one: Path, two: Path) -> bool:
    def content(path: Path) -> object:
        found = json.loads(path.read_text("utf-8"))
        return {k: v for k, v in found.items() if "seconds" not in k and k != "settings"} if isinstance(found, dict) else found

    return {p.name: content(p) for p in one.glob("*.json")} == {p.name: content(p) for p in two.glob("*.json")} != {}


def killed(n: int, folder: Path, work: Callable[[Path], object], same: Callable[[Path, Path], bool]) -> Count:
    """Kill a piece of work n times at random moments, each time going on; it has to come to the end it would have had."""
    g, count, start = np.random.default_rng(n), Count(), time.perf_counter()
    whole = child(lambda: work(folder / "whole"))
    whole.join()
    assert whole.exitcode == 0
    length, run, alive = time.perf_counter() - start, 0, 0
    while count.tried < n or alive:
        here = folder / str(run)
        process = child(lambda here=here: work(here))
        process.join(length * g.random() if count.tried < n else None)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            bad = unreadable(here) if here.exists() else []
            count.add(not bad, bad)
            alive += 1
        elif process.exitcode or not same(folder / "whole", here):
            count.survived -= alive
            count.faults.append(f"run {run} ended with {process.exitcode}, and otherwise than the whole one")
            run, alive = run + 1, 0
        else:
            run, alive = run + 1, 0
    return count


def training_killed(n: int, folder: Path) -> Count:
    """Trainings killed, and resumed to the last bit."""
    return killed(n, folder, lambda out: main(train(out, 30, "--resume")), same_run)


def proposing_killed(n: int, folder: Path) -> Count:
    """Proposals for a training killed; made again, the files are the same."""
    scenes, model = ShapesDataset(8, seed=1, size=64), load_model("shapes")

    def work(out: Path) -> None:
        with patch.object(detector, "SAVE_EVERY", 1):
            detector.make_proposals(model, scenes, out / "boxes.json", top_k=5, progress=False)

    return killed(n, folder, work, same_files)


def evaluation_killed(n: int, folder: Path) -> Count:
    """Evaluations killed; a result is whole or not there, and the same in the end."""
    return killed(n, folder, lambda out: main(evaluate(out)), same_files)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """A disk of 96 MB there; False where none can be mounted."""
    folder.mkdir(parents=True)
    mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def at_the_limit(words: list[str], limit: int | None) -> tuple[int, str]:
    """`said`, where files may have so many bytes at most."""
    if limit is None:
        return said(words)
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return said(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def full_disk(n: int, folder: Path) -> Count:
    """A disk that is full: a small one where one can be mounted, else a limit on the size of files."""
    count = Count()
    said(train(folder / "whole", 6))
    with disk(folder / "disk") as mounted:
        out, limit, filler = folder / "disk/run", None if mounted else 8192, folder / "disk/filler"
        assert said(train(out, 3))[0] == 0
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as f:
            while mounted:
                f.write(bytes(2**16))
        places = {
            "training": train(out, 6, "--resume"),
            "a new training": train(folder / "disk/other", 3),
            "evaluation": evaluate(folder / "disk"),
            "data": ["data", "shapes", str(folder / "disk/data"), "-n", "3"],
            "proposing": [
                "propose",
                str(folder / "whole/picture"),
                "-o",
                str(folder / "disk/p"),
                "--top-k",
                "3",
                "--model",
                "shapes",
            ],
        }
        write_coco_folder(ShapesDataset(2, seed=1, size=96), folder / "whole/picture", progress=False)
        for what, words in places.items():
            code, line = at_the_limit(words, limit)
            good = code == 2 and line.count("fairseg-lite: ") == 1 and "Traceback" not in line
            count.add(good and not unreadable(folder / "disk"), f"{what}: {code} {line} {unreadable(folder / 'disk')}")
        filler.unlink(missing_ok=True)
        code, line = said(train(out, 6, "--resume"))
        count.add(code == 0 and same_run(folder / "whole", out), f"resumed: {code} {line}")
    return count


def read_only(n: int, folder: Path) -> Count:
    """Folders that cannot be written to: what is asked for is refused before any work is done."""
    count = Count()
    with disk(folder / "disk") as mounted:
        shut = folder / "disk/shut"
        said(train(shut / "run", 3))
        write_coco_folder(ShapesDataset(1, seed=1, size=96), folder / "data", progress=False)
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", folder / "disk"], check=True)
        elif os.geteuid():
            shut.chmod(0o555)
            (shut / "run").chmod(0o555)
        else:  # to the superuser all folders are open: this one is none
            shut = folder / "data/instances.json"
        for words in (
            train(shut / "run", 6, "--resume"), train(shut / "other", 3), evaluate(shut / "x"),
            ["data", "shapes", str(shut / "data"), "-n", "1"],
            ["propose", str(folder / "data"), "-o", str(shut / "p"), "--model", "shapes"],
            ["train", "multipathnet", str(folder / "data"), "--out", str(shut / "m"), "--device", "cpu"],
            ["ablate", str(shut / "a"), "--device", "cpu"],
        ):  # fmt: skip
            code, line = said(words)
            count.add(code == 2 and len(line.splitlines()) == 1 and "cannot write" in line, f"{words[:2]}: {code} {line}")
        shut.chmod(0o755) if not mounted else None
    return count


def two_runs(n: int, folder: Path) -> Count:
    """A second training in a folder where one is going on: refused, and the first is as if nothing had been."""
    count = Count()
    said(train(folder / "whole", 80))
    for more in ([], ["--resume"])[:n]:
        out = folder / f"run{len(more)}"
        process = child(lambda out=out: main(train(out, 80)))
        while not (out / "state.safetensors").exists() and process.is_alive():
            time.sleep(0.01)
        code, line = said(train(out, 80, *more))
        process.join()
        refused = code == 2 and ("another process is training" in line or "holds a run already" in line)
        count.add(refused and process.exitcode == 0 and same_run(folder / "whole", out), f"{more}: {code} {line}")
    return count


def clock_jumps(n: int, folder: Path) -> Count:
    """A clock that goes back and forth by years while a training runs, and files from 1980 and 2100."""
    count, g = Count(), np.random.default_rng(7)
    said(train(folder / "whole", 9))
    for i in range(n):
        out = folder / str(i)
        with patch("time.time", lambda: float(g.uniform(0, 4e9))):
            codes = [said(train(out, 5))[0]]
            for path in out.iterdir():
                os.utime(path, (t := float(g.choice([3e8, 4.1e9])), t))
            codes.append(said(train(out, 9, "--resume"))[0])
        count.add(codes == [0, 0] and same_run(folder / "whole", out), codes)
    return count


def numbers_that_are_none(n: int, folder: Path) -> Count:
    """A batch with a NaN or an infinity in it: the training stops with a sentence, its last good state goes on."""
    count, scenes = Count(), ShapesDataset(6, seed=1, size=112)
    recipe = RECIPES["deepmask"]["shapes"]
    few = replace(recipe.fit, steps=9, save_every=3, log_every=1, precision="fp32")
    recipe = replace(recipe, positives=3, negatives=1, options={"features": 8}, fit=few)
    how = {"recipe": recipe, "device": "cpu", "progress": False}
    train_deepmask(scenes, out=folder / "whole", **how)
    for i in range(n):
        at, value = 3 + i % 6, (float("nan"), float("inf"))[i % 2]

        class Bad(PatchSampler):
            def batch(self, step: int, *part: int, at=at, value=value):
                found = super().batch(step, *part)
                if step == at:
                    found.images[0, 0, 5, 5] = value
                return found

        out = folder / str(i)
        try:
            train_deepmask(scenes, out=out, sampler=Bad, **how)
            count.add(False, "went on")
            continue
        except InputError as error:
            tensors, header = load_tensors(out / "state.safetensors")
            told = f"not finite at step {at}" in str(error) and "the last good checkpoint is in" in str(error)
            good = header["step"] == at // 3 * 3 and all(t.isfinite().all() for t in tensors.values())
        train_deepmask(scenes, out=out, resume=True, **how)
        count.add(told and good and same_run(folder / "whole", out), f"{at}: {told} {good}")
    return count


def pictures_that_go_bad(n: int, folder: Path) -> Count:
    """Pictures damaged in their middle, which only shows in mid-epoch: named once each, or the end of the run, as was chosen."""
    count = Count()
    for bad in range(1, n + 1):
        here = folder / str(bad)
        write_coco_folder(ShapesDataset(4, seed=bad, size=112), here / "data", progress=False)
        names = sorted((here / "data/images").iterdir())
        for path in names[:bad]:
            content = bytearray(path.read_bytes())
            content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
            path.write_bytes(content)
        code, line = said(train(here / "skips", 6, "--skip-faults", data=str(here / "data")))
        told = [sum(path.name in one for one in line.splitlines()) for path in names]
        if bad < 4:
            count.add(code == 0 and max(told[:bad]) == 1 and not any(told[bad:]), f"{bad} skipped: {code} {line}")
        else:  # nothing is left: it does not look for ever
            count.add(code == 2 and "every picture drawn is damaged" in line, f"{bad} skipped: {code} {line}")
        code, line = said(train(here / "stops", 6, data=str(here / "data")))
        count.add(
            code == 2 and any(path.name in line for path in names[:bad]) and "Traceback" not in line, f"{bad}: {code} {line}"
        )
        bad_files = unreadable(here / "skips") + unreadable(here / "stops")
        count.add(not bad_files, bad_files)
    return count
