"""Where annotation tools put pictures and annotations, and which file a name in the annotations means.

instances.json                     + images/, or the pictures beside it          ours
_annotations.coco.json             + the pictures beside it; also in train/ ...  Roboflow
annotations/instances_default.json + images/                                     CVAT
annotations/instances_NAME.json    + NAME/ or images/NAME/                       COCO
result.json                        + images/                                     Label Studio
FOLDER.json                        + FOLDER/ beside it
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from fairseg_lite.errors import InputError

PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2",
    ".heic", ".heif", ".dng",  # no decoder comes with Pillow: named as left out
}  # fmt: skip
UNDERSTOOD = (
    "instances.json, _annotations.coco.json (Roboflow, also in train/, valid/, test/), annotations/instances_*.json (COCO, "
    "CVAT), result.json (Label Studio), FOLDER.json beside the folder"
)


def locate(source: str | Path, images: str | Path | None = None) -> tuple[Path, Path]:
    """Where the pictures and the annotations of a data set are.

    Args:
        source: a folder in one of the layouts above (or its folder of pictures), or the JSON file. "FILE.json:FOLDER" names both.
        images: the folder of pictures, where it lies elsewhere.
    Returns:
        (folder of pictures, JSON file).
    Raises:
        InputError: nothing there, no layout that is understood, or two that fit.
    """
    if images is None and ".json:" in str(source):
        source, _, images = str(source).partition(".json:")
        source += ".json"
    source = Path(source).absolute() if str(source) in (".", "") else Path(source)
    if not source.exists():
        raise InputError(
            f"data {str(source)!r}: no such file or folder; wanted a folder with annotations in it, or their JSON file"
        )
    if images is not None and not Path(images).is_dir():
        raise InputError(f"images {str(images)!r}: no such folder")
    found = [source] if source.is_file() else sorted(set(candidates(source)))
    if len(found) > 1:
        names = " and ".join(repr(str(p)) for p in found[:6])
        raise InputError(f"data {str(source)!r} holds several annotation files, {names}; give one of them")
    if not found:
        there = sorted(p.name + "/" * p.is_dir() for p in source.iterdir())
        listed = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        raise InputError(
            f"data {str(source)!r}: no annotations are found; understood are {UNDERSTOOD}; there is {listed or 'nothing'}"
        )
    return Path(images) if images is not None else _images_of(found[0]), found[0]


def candidates(folder: Path) -> Iterator[Path]:
    """Annotation files of a folder: in it, in the splits below it, or beside it where it is itself the folder of pictures."""
    own = [p for p in _in(folder) if p.is_file()]
    yield from own
    if not own:
        yield from sorted(folder.glob("*/_annotations.coco.json"))
        resolved = folder.resolve()
        for parent in list(resolved.parents)[:2]:
            beside = [p for p in [*_in(parent), resolved.with_name(resolved.name + ".json")] if p.is_file()]
            yield from (p for p in beside if _images_of(p).resolve() == resolved)


def _in(folder: Path) -> list[Path]:
    own = [folder / name for name in ("instances.json", "_annotations.coco.json", "result.json")]
    return own + sorted((folder / "annotations").glob("instances_*.json"))


def _images_of(path: Path) -> Path:
    root, name = path.parent, path.stem
    if root.name == "annotations":
        root, name = root.parent, path.stem.removeprefix("instances_")
    places = [root / name, root / "images" / name, root / "images"]
    return next((p for p in places if p.is_dir()), root)


def list_pictures(source: str | Path, *, besides: str | Path | None = None) -> list[Path]:
    """The picture itself, or every picture in a folder and the folders below it, by path.

    Args: source; besides, a folder below it whose pictures are not meant.
    Raises:
        InputError: nothing there, or a folder without a picture.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"picture {str(source)!r}: no such file or folder")
    if not source.is_dir():
        return [source]
    without = None if besides is None else Path(besides).resolve()
    found = []
    for folder, below, names in os.walk(source):
        below[:] = [b for b in below if not b.startswith(".") and (Path(folder) / b).resolve() != without]
        found += [Path(folder) / n for n in names if Path(n).suffix.lower() in PICTURES and not n.startswith(".")]
    if not found:
        raise InputError(f"folder {str(source)!r} holds no picture ({', '.join(sorted(PICTURES))})")
    return sorted(found)


class Names:
    """Which picture a name in the annotations means.

    Args: folders that names start from, the first before the others.
    """

    def __init__(self, folders: Iterable[Path]):
        self.folders = list(dict.fromkeys(folders))

    def exact(self, name: str) -> Path | None:
        """The file of just that name."""
        return next((f / name for f in self.folders if name and (f / name).is_file()), None)

    def likely(self, name: str) -> list[Path]:
        """Files whose path agrees with the name's last parts, as far as any does; slashes, %20 and case do not count.

        Example:
            >>> names = Names([])
            >>> names.by_name = {"cat 1.png": [Path("a/cat 1.png"), Path("b/Cat 1.png")], "dog.png": [Path("dog.PNG")]}
            >>> [[str(p) for p in names.likely(n)] for n in (r"x\\\\B\\\\cat%201.png", "c/cat 1.png", "../dog.png", "cow.png")]
            [['b/Cat 1.png'], ['a/cat 1.png', 'b/Cat 1.png'], ['dog.PNG'], []]
        """
        parts = _parts(name)
        found = self.by_name.get(parts[-1], []) if parts else []
        same = [_agreeing(parts, _parts(str(p))) for p in found]
        return [p for p, n in zip(found, same, strict=True) if n == max(same)]

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """Files by the last part of their path, in lower case; the first folder that holds pictures counts."""
        by_name = defaultdict(list)
        for folder in self.folders[:1]:
            for where, below, names in os.walk(folder):
                below[:] = [b for b in below if not b.startswith(".")]
                for n in names:
                    by_name[n.lower()].append(Path(where) / n)
        return by_name


def _parts(name: str) -> list[str]:
    return [p for p in unquote(name).replace("\\", "/").lower().split("/") if p not in ("", ".", "..")]


def _agreeing(a: list[str], b: list[str]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return n
