"""Where annotation tools put pictures and annotations, and which file a name in the annotations means.

instances.json                     + images/, or the pictures beside it          ours
_annotations.coco.json             + the pictures beside it; also in train/ ...  Roboflow
annotations/instances_default.json + images/                                     CVAT
annotations/instances_NAME.json    + NAME/ or images/NAME/                       COCO
result.json                        + images/                                     Label Studio
FOLDER.json                        + FOLDER/ beside it
any other name                     + images/, data/ or the pictures beside it, if it is the one COCO file there
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from fairseg_lite.errors import InputError

PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2",
    ".heic", ".heif", ".dng",  # no decoder comes with Pillow: named as left out
}  # fmt: skip
UNDERSTOOD = (
    "instances.json, _annotations.coco.json (Roboflow, also in train/, valid/, test/), annotations/instances_*.json (COCO, "
    "CVAT), result.json (Label Studio), FOLDER.json beside the folder, or one COCO file of any name; labelme, VIA, YOLO, "
    "PASCAL VOC and folders of masks by `fairseg-lite data convert`"
)
UPLOADED = re.compile(r"^[0-9a-f]{8}(-|__)")  # what Label Studio puts before a name


def locate(source: str | Path) -> tuple[Path, Path]:
    """Where the pictures and the annotations of a data set are.

    Args:
        source: a folder in one of the layouts above (or its folder of pictures), or the JSON file. "FILE.json:FOLDER" names both.
    Returns: (folder of pictures, JSON file).
    Raises: InputError, nothing there, no layout that is understood, or two that fit.
    """
    name, both, images = str(source).partition(".json:")
    source = name + ".json" if both else source
    source = Path(source).absolute() if str(source) in (".", "") else Path(source)
    if not source.exists():
        raise InputError(
            f"data {str(source)!r}: no such file or folder; wanted a folder with annotations in it, or their JSON file"
        )
    if source.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise InputError(f"data {str(source)!r} is an archive; unpack it and give the folder")
    if source.is_file() and source.suffix.lower() not in ("", ".json"):
        raise InputError(f"data {str(source)!r} is no JSON file; understood are {UNDERSTOOD}")
    if both and not Path(images).is_dir():
        raise InputError(f"images {str(images)!r}: no such folder")
    found = [source] if source.is_file() else sorted(set(candidates(source)) or set(_below(source)))
    if len(found) > 1:
        names = " and ".join(repr(str(p)) for p in found[:6])
        raise InputError(f"data {str(source)!r} holds several annotation files, {names}; give one of them")
    if not found:
        there = sorted(p.name + "/" * p.is_dir() for p in source.iterdir())
        listed = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        raise InputError(
            f"data {str(source)!r}: no annotations are found; understood are {UNDERSTOOD}; there is {listed or 'nothing'}"
        )
    return Path(images) if both else _images_of(found[0], source if source.is_dir() else None), found[0]


def candidates(folder: Path) -> Iterator[Path]:
    """Annotation files of a folder: in it, in the splits below it, or beside it where it is itself the folder of pictures."""
    own = [p for p in _in(folder) if p.is_file()] or sorted(folder.glob("*/_annotations.coco.json"))
    resolved = folder.resolve()
    for parent in list(resolved.parents)[:2] if not own or own[0].parent.parent == folder else []:
        beside = [p for p in [*_in(parent), resolved.with_name(resolved.name + ".json")] if p.is_file()]
        own += [p for p in beside if _images_of(p).resolve() == resolved]
    yield from own or [p for p in sorted(folder.glob("*")) if _is_coco(p)]


def _in(folder: Path) -> list[Path]:
    own = [folder / name for name in ("instances.json", "_annotations.coco.json", "result.json")]
    return own + sorted((folder / "annotations").glob("instances_*.json"))


def _below(folder: Path) -> Iterator[Path]:
    """COCO files of any name, up to three folders deep."""
    return (p for p in chain(*map(folder.glob, ("*/*", "*/*/*", "*/*/*/*"))) if _is_coco(p))


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    text = path.read_bytes()
    return text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b'"images"' in text and b'"annotations"' in text


def _images_of(path: Path, top: Path | None = None) -> Path:
    """The folder of pictures that an annotation file of a layout means; top: the folder of the data set, where it is known."""
    root, name = path.parent, path.stem
    if root.name == "annotations":
        root, name = root.parent, path.stem.removeprefix("instances_")
    roots = [root, *(p for p in root.parents if top in (p, *p.parents))]
    places = (place for r in roots for place in (r / name, r / "images" / name, r / "images", r / "data"))
    here = top is None or any(p.suffix.lower() in PICTURES for p in root.iterdir())
    return next((p for p in places if p.is_dir()), root if here or top is None else top)


def name_from(picture: Path, path: Path) -> str:
    """How the annotation file `path` names a picture so that it is found: from its folder of pictures, or else from its own."""
    images, real = _images_of(path).resolve(), picture.resolve()
    if real.is_relative_to(images):
        return real.relative_to(images).as_posix()
    try:
        return Path(os.path.relpath(real, path.parent.resolve())).as_posix()
    except ValueError:  # on another drive
        return real.as_posix()


def other_format(content: object) -> str:
    """What a JSON that is no COCO file holds, for people.

    Example:
        >>> other_format({"shapes": [], "imagePath": "a.jpg"})
        "'shapes', 'imagePath': labelme's format, which `fairseg-lite data convert` reads"
    """
    one = content[0] if isinstance(content, list) and content else content
    keys = list(one) if isinstance(one, dict) else []
    known = {
        "labelme's format, which `fairseg-lite data convert` reads": {"shapes", "imagePath"},
        "VIA's format, which `fairseg-lite data convert` reads": {"_via_img_metadata"},
        "VIA's annotations, which `fairseg-lite data convert` reads": {"regions", "filename"},
        "COCO results, which `evaluate detections` takes": {"image_id", "score"},
        "Label Studio's own format; export as COCO": {"data", "annotations"},
    }
    values = [v for v in one.values() if isinstance(v, dict)][:1] if isinstance(one, dict) else []
    kind = next((k for k, has in known.items() if any(has <= set(d) for d in (keys, *values))), "")
    shown = ", ".join(map(repr, keys[:8])) or f"{type(content).__name__}"
    return ("a list of " if isinstance(content, list) and keys else "") + shown + (f": {kind}" if kind else "")


def list_pictures(source: str | Path, *, besides: str | Path | None = None) -> list[Path]:
    """The picture itself, or every picture in a folder and the folders below it, by path.

    Args: source; besides, a folder below it whose pictures are not meant.
    Raises: InputError, nothing there, or a folder without a picture.
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
        found += [Path(folder) / n for n in names if _is_picture(n)]
    if not found:
        raise InputError(f"folder {str(source)!r} holds no picture ({', '.join(sorted(PICTURES))})")
    return sorted(found)


class Names:
    """Which picture a name in the annotations means.

    Args: folders that names start from, the first before the others.
    """

    def __init__(self, folders: Iterable[Path]):
        self.folders = list(dict.fromkeys(folders))
        self._keyed: dict[Callable, dict[str, list[Path]]] = {}

    def exact(self, name: str) -> Path | None:
        """The file of just that name."""
        return next((f / name for f in self.folders if name and (f / name).is_file()), None)

    def likely(self, name: str) -> list[Path]:
        """Files that a name can mean: slashes, %20, case, forms of accents, what Label Studio puts before it and, last, the
        ending do not count.

        Of several those whose folders agree with the name's last folders, as far as any do.
        Example:
            >>> names = Names([])
            >>> names.files = [Path(p) for p in ("a/cat 1.png", "b/Cat 1.png", "dog.PNG")]
            >>> [[str(p) for p in names.likely(n)] for n in (r"x\\B\\cat%201.png", "c/cat 1.png", "0a1b2c3d-dog.jpg", "cow.png")]
            [['b/Cat 1.png'], ['a/cat 1.png', 'b/Cat 1.png'], ['dog.PNG'], []]
        """
        *folders, last = _parts(name) or [""]
        found = next((f for key in (str, _bare, _stem) if (f := self._by(key).get(key(last)))), [])
        same = [_agreeing(folders, _parts(str(p))[:-1]) for p in found]
        return [p for p, n in zip(found, same, strict=True) if n == max(same)]

    def only(self, name: str) -> Path | None:
        """The file of just that name, or else the one file that it can mean."""
        found = [exact] if (exact := self.exact(name)) else self.likely(name)
        return found[0] if len(found) == 1 else None

    @cached_property
    def files(self) -> list[Path]:
        """Pictures in the first of the folders, and below it."""
        walked = os.walk(self.folders[0]) if self.folders else []
        return [Path(where) / n for where, _, names in walked for n in names if _is_picture(n) and "/." not in where]

    def _by(self, key: Callable[[str], str]) -> dict[str, list[Path]]:
        """Files by what a key makes of the last part of their path in lower case."""
        if key not in self._keyed:
            self._keyed[key] = defaultdict(list)
            for p in self.files:
                self._keyed[key][key(_plain(p.name))].append(p)
        return self._keyed[key]


def meant(keys: Mapping[str, int]) -> dict[str, int]:
    """The keys of pictures by their names, and by the last part of a name, with and without its ending, where one alone has it.

    Example:
        >>> names = meant({"a/x.png": 1, "b/x.png": 2, "b/y.png": 3})
        >>> names["y"], names["y.png"], names["a/x.png"], "x" in names
        (3, 3, 1, False)
    """
    short: dict[str, set[int]] = defaultdict(set)
    for name, key in keys.items():
        last = name.replace("\\", "/").rpartition("/")[2]
        for part in {last, os.path.splitext(last)[0]}:
            short[part].add(key)
    return {name: found.pop() for name, found in short.items() if len(found) == 1} | dict(keys)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURES and not name.startswith(".")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()  # Apple's file systems take letters and their marks apart


def _parts(name: str) -> list[str]:
    parts = [p.strip() for p in _plain(unquote(name)).replace("\\", "/").split("/") if p.strip() not in ("", ".", "..")]
    return parts[:-1] + [parts[-1].split("?")[0]] if parts else parts


def _bare(name: str) -> str:
    return UPLOADED.sub("", name)


def _stem(name: str) -> str:
    return _bare(os.path.splitext(name)[0] if _is_picture(name) else name)


def _agreeing(a: list[str], b: list[str]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return n
