"""Damaged, hostile and senseless files: a result or a sentence, within bounded memory, and nothing written elsewhere."""

import inspect
import io
import json
import struct
import zipfile
import zlib
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, to_coco, write_coco_folder
from fairseg_lite.data.pictures import load_image, probe_image
from fairseg_lite.data.results import load_boxes, read_results
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.formats import download
from fairseg_lite.models.checkpoints import load_model, save_tensors
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.official.reader import Torch7Error
from tests.robust import Count
from tests.robust.accidents import said

ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    1e308,
    float("nan"),
    "",
    "x",
    "../x",
    "\0",
    [],
    [[]],
    [None],
    {},
    {"counts": "~"},
    [1e9] * 8,
]
SPAN = 40  # bytes of one fault at most


def mutated(g: np.random.Generator, content: bytes, *, within: int | None = None) -> bytes:
    """Up to four faults: a byte or a number exchanged, a piece cut out, doubled or moved, or the end cut off."""
    found = bytearray(content)
    for _ in range(g.integers(1, 5)):
        at, length = int(g.integers(min(len(found), within or len(found)) + 1)), int(g.integers(1, SPAN))
        match g.integers(6):
            case 0:
                found[at : at + 1] = bytes([g.integers(256)])
            case 1:
                found[at : at + 4] = struct.pack(">I", g.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length]
            case 4:
                found[at : at + length] = bytes(g.integers(0, 256, length, np.uint8))
            case _:
                del found[max(at, 1) :]
    return bytes(found)


def mutated_json(g: np.random.Generator, content: object) -> bytes:
    """JSON with up to three of its values exchanged for odd ones, or left out; or its text mutated."""
    if g.random() < 0.2:
        return mutated(g, json.dumps(content).encode())
    content = json.loads(json.dumps(content))
    for _ in range(g.integers(1, 4)):
        at, places = content, 0
        while isinstance(at, dict | list) and len(at):
            key = list(at)[g.integers(len(at))] if isinstance(at, dict) else int(g.integers(len(at)))
            places += 1
            if g.random() < 0.15 * places or not isinstance(at[key], dict | list) or not len(at[key]):
                if g.random() < 0.2:
                    del at[key]
                else:
                    at[key] = deepcopy(ODD[g.integers(len(ODD))])
                break
            at = at[key]
    return json.dumps(content).encode()


def torch7(n: int, folder: Path) -> Count:
    """Torch7 files, read as `import` reads them."""
    from tests.official import test_torch7_hostile as hostile

    count, g = Count(), np.random.default_rng(1)
    for i in range(n):
        try:
            error = hostile.read(hostile.mutated(g))
            count.add(error is None or isinstance(error, Torch7Error))
        except BaseException as error:  # also where it takes too many steps or too much memory
            count.add(False, f"{i}: {type(error).__name__}: {error}")
    return count


def annotations(n: int, folder: Path) -> Count:
    """COCO annotations, looked at whole as `data check` does, and scene by scene."""
    write_coco_folder(ShapesDataset(2, seed=1, size=64), folder, progress=False)
    count, g, content = Count(), np.random.default_rng(2), json.loads((folder / "instances.json").read_text("utf-8"))

    def read() -> None:
        data = CocoDataset(folder, on_fault="collect")
        for i in range(len(data)):
            assert data[i].masks.shape[1:] == data[i].image.shape[:2]

    for i in range(n):
        (folder / "instances.json").write_bytes(bad := mutated_json(g, content))
        count.survives(read, (i, bad[:300]))
    return count


def results(n: int, folder: Path) -> Count:
    """COCO result files, as `evaluate detections` and --proposals read them."""
    scenes = ShapesDataset(2, seed=1, size=64)
    truth, g, count = to_coco(scenes), np.random.default_rng(3), Count()
    rows = [{**a, "score": 0.5} for a in truth["annotations"]]
    for i in range(n):
        (folder / "r.json").write_bytes(bad := mutated_json(g, rows))
        read = (lambda: read_results(folder / "r.json", truth["images"])) if i % 2 else (lambda: load_boxes(folder / "r.json"))
        count.survives(read, (i, bad[:300]))
    return count


def checkpoints(n: int, folder: Path) -> Count:
    """Checkpoints: the safetensors file, mostly in its header, or the JSON in it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = deepmask_tiny(features=8)
    path, g, count = folder / "c.safetensors", np.random.default_rng(4), Count()
    save_tensors(path, model.state_dict(), header := json.loads(json.dumps(model.record.header())))
    good = path.read_bytes()
    head = 8 + struct.unpack("<Q", good[:8])[0]
    for i in range(n):
        if i % 2:
            path.write_bytes(mutated(g, good, within=head if i % 4 == 1 else None))
        else:
            words = mutated_json(g, header).decode("utf-8", "replace")
            whole = json.loads(good[8:head])
            whole["__metadata__"]["fairseg_lite"] = words
            text = json.dumps(whole).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + good[head:])
        count.survives(lambda: load_model(path), i)
    return count


def pictures(n: int, folder: Path) -> Count:
    """Pictures of seven kinds, probed and decoded."""
    g, count, kinds = np.random.default_rng(5), Count(), []
    pixels = g.integers(0, 256, (24, 32, 3), np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        Image.fromarray(pixels).save(buffer := io.BytesIO(), kind)
        kinds.append(buffer.getvalue())
    path = folder / "picture"
    for i in range(n):
        path.write_bytes(mutated(g, kinds[i % len(kinds)]))
        read = probe_image if i % 3 == 0 else load_image
        count.survives(lambda read=read: read(path), i)
    return count


def bombs(n: int, folder: Path) -> Count:
    """Small files that would unpack to gigabytes: pictures, and archives of a server that lies."""
    count, side = Count(), 60_000
    row = zlib.compress(bytes(2**20), 9) * 4
    for depth, colour in ((8, 2), (16, 6), (1, 0)):
        data = b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in (
                (b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)),
                (b"IDAT", row),
                (b"IEND", b""),
            )
        )
        (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        count.survives(lambda: load_image(folder / "bomb.png"), depth, refused="megapixels")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_val2017.json", bytes(2**26))
    with served({"/" + download.FILES["annotations"][0]: (folder / "bomb.zip").read_bytes()}) as url:
        count.survives(lambda: download.download_coco(folder / "coco", mirror=url, progress=False), "zip", refused="offers")
    return count


def garbage(n: int, folder: Path) -> Count:
    """n MB of noise, of brackets, of numbers and of one long text, where JSON is expected."""
    count, path, size = Count(), folder / "instances.json", n * 2**20
    noise = np.random.default_rng(6).bytes(2**20)
    for name, piece, end in (
        ("noise", noise, b""),
        ("brackets", b"[" * 2**20, b""),
        ("numbers", b"12345678," * 2**17, b"0]"),
        ("text", b"x" * 2**20, b'"'),
    ):
        with open(path, "wb") as f:
            f.write({"numbers": b"[", "text": b'"'}.get(name, b""))
            for _ in range(size // 2**20):
                f.write(piece)
            f.write(end)
        count.survives(lambda: CocoDataset(folder), name, refused="instances.json")
        count.survives(lambda: read_results(path), name, refused="instances.json")
    path.unlink()
    return count


NAMES = (
    "../x.png",
    "/x.png",
    "a/../../x.png",
    "..",
    "x/../../../x.png",
    "./../x.png",
    "..\\x.png",
    "\0.png",
    "",
)


def traversal(n: int, folder: Path) -> Count:
    """File names that lead out of a folder, in annotations of COCO's server and of a user: nothing is written outside."""
    count = Count()
    for i, name in enumerate(NAMES):
        home = folder / "in" / str(i) / "deep" / "home"
        write_coco_folder(ShapesDataset(1, seed=1, size=64), home / "data", progress=False)
        picture = next((home / "data/images").iterdir())
        content = json.loads((home / "data/instances.json").read_text("utf-8"))
        content["images"][0]["file_name"] = name
        (home / "data/instances.json").write_text(json.dumps(content), "utf-8")
        for place in (home / "data" / "x.png", home / "x.png", home.parent / "x.png"):
            place.write_bytes(picture.read_bytes())
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
        code, _ = said(["propose", str(home / "data"), "-o", str(home / "out"), "--model", "shapes", "--top-k", "3"])
        after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and home / "out" not in p.parents}
        count.add(code in (0, 2) and before == after, f"propose {name!r}: {set(after) ^ set(before)}")
        content["images"][0]["file_name"] = name
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as f:
            f.writestr("annotations/instances_val2017.json", json.dumps(content))
        data, files = archive.getvalue(), dict(download.FILES)
        address = files["annotations"][0]
        with served({"/" + address: data}) as url:
            download.FILES["annotations"] = (address, len(data), None)
            try:
                fetch = partial(download.download_coco, home / "coco", subset=1, mirror=url, progress=False, wait=0.01, tries=1)
                count.survives(fetch, f"data coco {name!r}", refused="")
            finally:
                download.FILES.update(files)
        after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and home not in p.parents}
        count.add(after == {p: t for p, t in before.items() if home not in p.parents}, f"data coco {name!r}: wrote outside")
    return count


def served(files: dict[str, bytes]):
    """A server on this machine, its address."""
    import contextlib
    import threading

    from tests.formats.test_download import Server

    @contextlib.contextmanager
    def running():
        server = Server()
        server.files = files
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.url
        finally:
            server.shutdown()
            server.server_close()

    return running()


def properties(n: int, folder: Path) -> Count:
    """The properties that tests of boxes, masks, RLE and samplers ask of whatever hypothesis draws; n files of them at most."""
    import tests.conftest  # noqa: F401  (its profile: no clock on a busy machine)
    from tests.data import test_patches, test_rois
    from tests.geometry import test_boxes, test_masks, test_pixels_resample

    count = Count()
    for module in (test_boxes, test_masks, test_pixels_resample, test_rois, test_patches)[:n]:
        for name, test in vars(module).items():
            if not hasattr(test, "hypothesis") or inspect.signature(test).parameters:
                continue
            inner, calls = test.hypothesis.inner_test, []

            def counted(*args, inner=inner, calls=calls, **kwargs):
                calls.append(1)
                return inner(*args, **kwargs)

            test.hypothesis.inner_test = counted
            try:
                test()
                count.tried += len(calls)
                count.survived += len(calls)
            except Exception as error:
                count.add(False, f"{name}: {error}")
            finally:
                test.hypothesis.inner_test = inner
    return count
