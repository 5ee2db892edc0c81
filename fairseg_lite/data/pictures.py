"""Picture files as arrays of 8-bit RGB, whatever they hold: grey, palette, CMYK, alpha, 16 bits, EXIF rotation."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fairseg_lite.errors import InputError

MAX_MEGAPIXELS = 179  # of a picture, unless the environment variable FAIRSEG_MAX_MEGAPIXELS says another; Pillow's own limit
FOREIGN = {".heic", ".heif", ".jp2", ".avif"}
RAW = {".dng", ".nef", ".cr2", ".arw", ".pef", ".srw"}  # TIFF files to Pillow, which finds their small preview
DNG_VERSION = 50706  # a tag of such files, whatever their name
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # near the end of a file that was not cut


class WrongSize(InputError):
    """A good picture, but not of the size that its annotations were made for."""

    kind = "picture of another size"


class TooLarge(InputError):
    """Perhaps a good picture, but of more pixels than are read."""

    kind = "picture too large"


def load_image(path: str | Path, size: tuple[int, int] | None = None, *, max_side: int | None = None) -> np.ndarray:
    """Decode a picture upright.

    Args:
        path: any format that Pillow reads; of an animation the first frame.
        size: (height, width) that annotations claim. Where the stored pixels have this size, the annotator ignored EXIF
            rotation, and so do we; else, and without a size, it is applied.
        max_side: reduce a larger picture to this longest side (`reduced`), in pixels.
    Returns: (H, W, 3) uint8 RGB. Transparent pixels are laid on white; of 16 bits the upper 8 of those in use are kept.
    Raises:
        InputError: no such file, not a picture, cut or damaged, floating-point pixels, 16-bit colours most of whose bits are not
        in use; TooLarge; or WrongSize, another size than claimed.

    Source: COCO's pictures are taken as stored; rotation is our choice. Lesson: 01.
    """
    try:
        with _opened(path) as image:
            deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", []))  # of which Pillow keeps the upper 8
            stored = None
            if max_side and image.format == "JPEG":  # decodes a half, a quarter or an eighth at once
                stored = image.height, image.width
                image.draft(None, reduced(*stored, max_side)[::-1])
            image.load()  # first: a PNG may carry its EXIF behind the pixels
            stored = stored or (image.height, image.width)
            turn = _orientation(image) if size != stored else 1
            pixels = _rgb(ImageOps.exif_transpose(image) if turn > 1 else image)
            found = stored[::-1] if turn >= 5 else stored
        if deep and pixels.max() < 32:
            raise InputError("its colours have 16 bits of which less than 14 are used: it would be black; save it with 8 bits")
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise _why(path, error) from error
    if size is not None and found != tuple(size):
        why = "are these height and width, or was it turned" if found == tuple(size)[::-1] else "was it resized"
        raise WrongSize(
            f"picture {str(path)!r} is {found[1]} x {found[0]} px where the annotations say {size[1]} x {size[0]}; "
            f"{why} after it was annotated?"
        )
    if pixels.shape[:2] != (wanted := reduced(*found, max_side)):
        pixels = np.asarray(Image.fromarray(pixels).resize(wanted[::-1], Image.Resampling.BOX))
    return pixels


def reduced(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """The size of a picture whose longer side gets at most so many pixels; as it is without a limit.

    Example:
        >>> reduced(3000, 4000, 1024), reduced(30, 40, 1024)
        ((768, 1024), (30, 40))
    """
    scale = min(1.0, (max_side or math.inf) / max(height, width))
    return max(round(scale * height), 1), max(round(scale * width), 1)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """As `Image.open`, with our limit of pixels instead of Pillow's."""
    said = os.environ.get("FAIRSEG_MAX_MEGAPIXELS", MAX_MEGAPIXELS)
    try:
        limit = float(said)
    except ValueError:
        raise TooLarge(f"FAIRSEG_MAX_MEGAPIXELS is {said!r}; wanted a number of megapixels") from None
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        image = Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = before
    with image:
        if image.format == "TIFF" and (Path(path).suffix.lower() in RAW or DNG_VERSION in getattr(image, "tag_v2", ())):
            raise InputError("it is a camera's raw data, of which only the preview would be seen; save it as JPEG or PNG")
        if (million := image.height * image.width / 1e6) > limit:
            raise TooLarge(
                f"picture {str(path)!r} has {million:.3g} megapixels, and at most {limit:g} are opened; cut it into tiles or "
                "reduce it, and its annotations with it, or set the environment variable FAIRSEG_MAX_MEGAPIXELS to more"
            )
        yield image


def probe_image(path: str | Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Size of a picture from its first bytes, plus a look at its last: quick, as nothing is decoded.

    Args: as `load_image`. Returns: (height, width) that `load_image` would give.
    Raises: ValueError, as `load_image`; damage in the middle of a file is not seen.
    """
    try:
        with _opened(path) as image:
            stored = image.height, image.width
            upright = stored[::-1] if _orientation(image) >= 5 else stored
            mark = ENDS.get(image.format or "", b"")
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 1024))
            whole = mark in file.read()
    except Exception as error:
        raise _why(path, error) from error
    if not whole or size not in (None, stored, upright):  # cut, something follows the picture, or EXIF comes late
        return load_image(path, size).shape[:2]
    return size or upright


def exif_turn(path: str | Path, size: tuple[int, int]) -> str:
    """Whether EXIF turns a picture, and which of the two its annotations mean: "none", "stored" or "upright"."""
    with _opened(path) as image:
        if _orientation(image) == 1:
            return "none"
        return "stored" if (image.height, image.width) == size else "upright"


def _why(path: str | Path, error: Exception) -> InputError:
    """What to tell of a picture that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"picture {str(path)!r}: no such file")
    if isinstance(error, TooLarge):
        return error
    text = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError) and Path(path).suffix.lower() in FOREIGN:
        text = f"no decoder of {Path(path).suffix} comes with Pillow; save it as JPEG or PNG"
    return InputError(f"picture {str(path)!r} cannot be decoded: {text}")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation as far as it is read; of a TIFF none is left, as Pillow turns it upright itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = Image.Image.getexif(image).get(0x0112, 1)  # a PNG's own getexif would decode, and hide damage
    except Exception:  # damaged EXIF beside a good picture
        return 1
    return value if value in range(1, 9) else 1


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise InputError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(f"its pixels go from {grey.min()} to {grey.max()}; save it with 8 or 16 bits")
        unused = max(int(grey.max()).bit_length() - 8, 0)  # a microscope's or an X-ray's 12 bits do not fill 16
        return np.repeat((grey >> unused).astype(np.uint8)[..., None], 3, 2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return np.array(image.convert("RGB"))
