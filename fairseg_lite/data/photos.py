"""Pictures to look at: those of a file or a folder, with the ids of their annotations; and 24 that come with the library.

How the 24 were chosen, before any network saw them: of COCO 2017 the first pictures by id with a licence that allows to show them
(CC BY, or no known restrictions), 2 to 12 annotations, no crowd and a largest object of 5 to 60 % of the picture, one for each
category of that object, eight; of Pixabay the first by list of each category still missing, uploaded while its pictures were CC0,
nine; of the endangered animals the first of each kind in which no person is seen, seven. Longest side 480 px at most.
None of them is in a training set of the networks that come with the library. Origins and licences: photographs/README.md.
"""

import os
from pathlib import Path
from typing import NamedTuple

from fairseg_lite.data.coco import CocoDataset
from fairseg_lite.data.coco_json import Content
from fairseg_lite.data.layouts import candidates, list_pictures, locate
from fairseg_lite.data.pictures import probe_image
from fairseg_lite.errors import InputError

FOLDER = Path(__file__).parent / "photographs"


def photographs() -> CocoDataset:
    """The 24 photographs as a data set; those of COCO are annotated whole, the others in the kinds they were chosen for.

    Example:
        >>> photos = photographs()
        >>> len(photos), photos[7].image.shape, [photos.categories[k] for k in photos[7].labels][:2]
        (24, (305, 480, 3), ['potted plant', 'cat'])

    Lesson: 00.
    """
    return CocoDataset(FOLDER)


class Listed(NamedTuple):
    """A picture file."""

    path: Path
    name: str  # its path below the folder of pictures, with /
    id: int
    size: tuple[int, int] | None  # (height, width) for which it is annotated
    fault: str | None = None  # why it is not the picture that the annotations mean
    new: bool = False  # there are annotations, and they do not list it

    def entry(self) -> dict:
        """As COCO lists it; without a size where it is damaged."""
        entry = {"id": self.id, "file_name": self.name}
        try:
            height, width = self.size or probe_image(self.path)
        except InputError:
            return entry
        return {**entry, "height": height, "width": width}


def listed_pictures(source: str | Path, *, besides: str | Path | None = None) -> tuple[list[Listed], str]:
    """The pictures of a file, a folder or a data set, by path.

    Args:
        source: a picture; a folder of pictures, whose annotations may lie in it or beside it; or what `locate` takes.
        besides: a folder below it whose pictures are not meant.
    Returns: The pictures: ids as annotated; of those that no annotation file lists new ones from the highest on; without
        annotations 1, 2, ... And a sentence about pictures that the annotations do not list, "" where there are none.
    Raises: InputError, no picture, or annotations that cannot be read.
    """
    folder = Path(source)
    alone = folder.is_file() and folder.suffix.lower() != ".json"
    folder = folder.parent if alone else folder
    nothing = not folder.exists() and ".json" not in str(source)  # `list_pictures` says so
    if nothing or (folder.is_dir() and not list(candidates(folder))):
        root = folder
        found = list_pictures(source, besides=besides)
        return [Listed(p, _name(p, root), i, None) for i, p in enumerate(found, 1)], ""
    images, path = locate(source if not alone else folder)
    content = Content(images, path)
    inside = not folder.is_dir() or images.resolve().is_relative_to(folder.resolve())
    known = {os.path.realpath(p.path): p for p in content.pictures}
    try:
        found = list_pictures(source if alone or not inside else images, besides=besides)
    except InputError:
        if alone or not known:
            raise
        found = []  # they lie elsewhere
    if not alone:
        there = set(map(os.path.realpath, found))
        found += [p.path for real, p in known.items() if inside and real not in there]
    fresh, listed, unknown = content.fresh, [], []
    for p in found:
        real = os.path.realpath(p)
        name = _name(p, images)
        if real in known:
            listed.append(Listed(p, name, known[real].id, (known[real].height, known[real].width)))
        elif real in content.unfit:
            listed.append(Listed(p, name, -1, None, content.unfit[real]))
        else:
            fresh += 1
            listed.append(Listed(p, name, fresh, None, new=True))
            unknown.append(name)
    if not unknown:
        return listed, ""
    names = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
    first = fresh - len(unknown) + 1
    are = "is" if len(unknown) == 1 else "are"
    return listed, f"{len(unknown)} of {len(found)} pictures {are} not in {str(path)!r} ({names}): new ids from {first} on"


def _name(path: Path, root: Path) -> str:
    below = Path(os.path.relpath(path.resolve(), root.resolve()))
    return "/".join(part for part in below.parts if part != "..")
