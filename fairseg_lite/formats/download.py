"""COCO 2017, whole or a small subset, over a network that fails: resumed, verified, and never half there.

`download` fetches one file. It goes on where it stopped (HTTP Range), takes nothing from a server that answers with
another range, length or content, and the file gets its name only when it is whole. `download_coco` makes a COCO folder:
`images/` and `instances.json`, which is written last, so that a folder with that file is complete.
"""

import hashlib
import http.client
import json
import os
import random
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from fairseg_lite.data.pictures import load_image
from fairseg_lite.errors import InputError, check_choice, check_range
from fairseg_lite.geometry.files import whole

COCO = "http://images.cocodataset.org"
FILES = {  # name: (address below COCO, bytes, checksum)
    "annotations": (
        "annotations/annotations_trainval2017.zip", 252_907_541,
        "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    "val2017": (
        "zips/val2017.zip", 815_585_330,
        "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    "train2017": ("zips/train2017.zip", 19_336_861_798, "md5:cced6f7f71b7629ddf16f17bbcfab6b2"),
}  # fmt: skip
WORKERS = 8  # pictures fetched at the same time


class _TryAgain(Exception):
    """A fault of the network that another attempt may not meet."""


def download(
    url: str, path: str | Path, *, size: int | None = None, checksum: str | None = None, tries: int = 5,
    timeout: float = 30.0, wait: float = 1.0, progress: bool = True,
) -> Path:  # fmt: skip
    """Fetch one file; with a checksum, what an earlier call left in `PATH.part` is gone on from.

    Args:
        url: http:// or https:// address.
        path: where the file goes; a file there that fits size and checksum is kept and nothing is fetched.
        size, checksum: bytes the file must have; "sha256:..." or "md5:..." that its content must have.
        tries, wait: attempts in a row that may bring nothing new; seconds before the second, doubled each time, at most 30.
        timeout: seconds without a byte after which the connection counts as stalled.
        progress: show a bar when it takes more than 2 s.
    Returns: path.
    Raises: InputError, no such address, the server gives something else than asked, too little room on the disk, or all
        tries failed; the message names the address, the fault and what is kept.
    Source: RFC 9110 section 14 (Range). Lesson: none.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"address {url!r} is neither http:// nor https://")
    path = Path(path)
    if path.is_file() and (size or checksum) and _fault(path, size, checksum) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if not checksum:
        part.unlink(missing_ok=True)  # nothing could tell whether the rest still belongs to it
    resumed = part.exists()
    failures, best = 0, _length(part)
    with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=not progress, delay=2) as bar:
        while True:
            try:
                _fetch(url, part, size, timeout, bar)
                fault = _fault(part, size, checksum)
                if fault is None:
                    os.replace(part, path)
                    return path
                part.unlink()
                if not resumed:
                    raise InputError(f"{url} has another content than it should: {fault}; deleted, nothing kept")
                resumed, best = False, 0  # perhaps only the old beginning was wrong
            except _TryAgain as error:
                failures = 0 if _length(part) > best else failures + 1
                best = max(best, _length(part))
                if failures >= tries:
                    kept = f"{best} bytes are kept, the next call goes on from there" if checksum else "nothing is kept"
                    if not checksum:
                        part.unlink(missing_ok=True)
                    raise InputError(f"{url} failed {tries} times in a row, last: {error}; {kept}") from error
                time.sleep(min(wait * 2**failures, 30.0))


def _fetch(url: str, part: Path, size: int | None, timeout: float, bar: tqdm) -> None:
    have = _length(part)
    if size is not None and have >= size:
        return  # the caller compares length and checksum
    headers = {"User-Agent": "fairseg-lite", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # our part is longer than the file
            part.unlink()
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _TryAgain(f"the server answered {error.code} {error.reason}") from error
        raise InputError(f"{url}: the server answered {error.code} {error.reason}; is the address right?") from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _TryAgain(f"no answer ({getattr(error, 'reason', None) or error or type(error).__name__})") from error
    with response:
        total = _announced(response, part, have)
        if size is not None and total not in (None, size):
            raise InputError(f"{url}: the server offers {total} bytes where the file has {size}; is a proxy answering?")
        if response.status != 206:
            have = 0  # it ignored our range and begins anew
        if (needed := (total or 0) - have) > (free := shutil.disk_usage(part.parent).free):
            raise InputError(f"{str(part.parent)!r} has {free} bytes free; {url} needs {needed} more: make room")
        bar.total = total
        bar.update(have - bar.n)
        with open(part, "ab" if have else "wb") as f:
            while chunk := _read(response):
                f.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
                if have > (size or total or have):
                    raise InputError(f"{url}: the server sends more than the {size or total} bytes of the file")
    if total is not None and have < total:
        raise _TryAgain(f"the connection ended after {have} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(1 << 16)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgain(f"the connection broke or stalled ({error or type(error).__name__})") from error


def _announced(response: http.client.HTTPResponse, part: Path, have: int) -> int | None:
    """Length of the whole file; None for a chunked answer, whose end is marked."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            part.unlink(missing_ok=True)
            raise _TryAgain(f"asked for bytes from {have}, got {response.headers.get('Content-Range')!r}")
        return int(found[3])
    length = response.headers.get("Content-Length", "")
    if length.isdigit():
        return int(length)
    if response.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return None
    raise InputError(f"{response.url}: the server does not say how long the file is, so a cut could not be seen")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fault(path: Path, size: int | None, checksum: str | None) -> str | None:
    """What is wrong with a file's length or checksum, or None."""
    if size is not None and _length(path) != size:
        return f"{_length(path)} bytes, wanted {size}"
    if checksum is not None:
        kind, _, wanted = checksum.partition(":")
        with open(path, "rb") as f:
            found = hashlib.file_digest(f, kind).hexdigest()
        if found != wanted:
            return f"{kind} {found}, wanted {wanted}"
    return None


def download_coco(
    folder: str | Path, *, split: str = "val2017", subset: int | None = None, mirror: str | None = None, **options: Any
) -> dict:
    """Make a COCO folder (`images/` + `instances.json`) of a split of COCO 2017; after a failure call it again.

    Args:
        folder: where it goes. `downloads/` in it keeps the archives and may be deleted afterwards.
        split: "val2017" (5,000 pictures, .8 GB) or "train2017" (118,287 pictures, 19 GB).
        subset: so many pictures with at least one instance, fetched one by one; always the same ones, and a larger
            subset holds the smaller. None fetches the whole split. The annotations (.25 GB) come in any case.
        mirror: an address that serves the same files; None: COCO's own.
        options: tries, timeout, wait and progress of `download`.
    Returns: {"folder": Path, "images": int, "instances": int}.
    Raises: InputError as `download`; an unknown split; a folder that holds another data set; a picture that is damaged.
    Source: the official archives; their checksums are pinned above. A single picture has no published checksum: its
        length, width, height and decoding are checked.
    """
    check_choice("split", split, ("val2017", "train2017"))
    check_range("subset", subset, 1, None)
    folder, mirror = Path(folder), mirror or COCO
    path = folder / "instances.json"
    if path.exists() and f'"split": "{split}"' not in path.read_text("utf-8"):
        raise InputError(f"folder {str(folder)!r} holds another data set already; choose another folder")
    with _archive("annotations", folder, mirror, options) as archive:
        content = json.loads(archive.read(f"annotations/instances_{split}.json"))
    if subset:
        annotated = sorted({a["image_id"] for a in content["annotations"]})
        random.Random(0).shuffle(annotated)
        keep = set(annotated[:subset])
        content["images"] = [i for i in content["images"] if i["id"] in keep]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in keep]
    if odd := [n for i in content["images"] if Path(n := i["file_name"]).name != n or n in ("", "..") or {"\0", "\\"} & set(n)]:
        raise InputError(f"annotations of {split} name a picture {odd[0]!r}; a plain file name is wanted")
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    zipped = None if subset else _archive(split, folder, mirror, options)

    def make(item: dict) -> None:
        """One picture, under its own name only when it decodes with the width and height that the annotations tell."""
        target, name = images / item["file_name"], f"{split}/{item['file_name']}"
        if _picture_fault(target, item) is None:
            return
        with whole(target) as new:
            if zipped:
                new.write_bytes(zipped.read(name))
                return
            url = f"{mirror.rstrip('/')}/{name}"
            download(url, new, **options | {"progress": False})
            if fault := _picture_fault(new, item):
                raise InputError(f"{url} is no good picture: {fault}; the pictures fetched so far are kept")

    with ThreadPoolExecutor(WORKERS if subset else 1) as pool:
        made = pool.map(make, content["images"])  # the first error stops the rest
        quiet = not options.get("progress", True)
        deque(tqdm(made, total=len(content["images"]), unit="picture", disable=quiet, delay=2), maxlen=0)
    content["info"] = {**content.get("info", {}), "split": split, "subset": subset}
    with whole(path) as part:
        part.write_text(json.dumps(content), "utf-8")
    return {"folder": folder, "images": len(content["images"]), "instances": len(content["annotations"])}


def _archive(name: str, folder: Path, mirror: str, options: dict) -> zipfile.ZipFile:
    address, size, checksum = FILES[name]
    path = folder / "downloads" / Path(address).name
    return zipfile.ZipFile(download(f"{mirror.rstrip('/')}/{address}", path, size=size, checksum=checksum, **options))


def _picture_fault(path: Path, item: dict) -> str | None:
    try:
        load_image(path, (item["height"], item["width"]))
    except InputError as error:
        return str(error)
    return None
