"""Picture files as arrays of 8-bit RGB, whatever they hold: grey, palette, CMYK, alpha, 16 bits, EXIF rotation."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fairseg_lite.errors import InputError

ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # near the end of a file that was not cut


class WrongSize(InputError):
    """A good picture, but not of the size that its annotations were made for."""


def load_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a picture upright.

    Args:
        path: any format that Pillow reads; of an animation the first frame.
        size: (height, width) that annotations claim. Where the stored pixels have this size, the annotator ignored EXIF
            rotation, and so do we; else, and without a size, it is applied.
    Returns:
        (H, W, 3) uint8 RGB. Transparent pixels are laid on white; of 16 bits the upper 8 of those in use are kept.
    Raises:
        InputError: no such file, not a picture, cut or damaged, floating-point pixels, or of another size than claimed.

    Source: COCO's pictures are taken as stored; rotation is our choice. Lesson: 01.
    """
    try:
        with Image.open(path) as image:
            image.load()  # first: a PNG may carry its EXIF behind the pixels
            stored = image.height, image.width
            turn = _orientation(image) > 1 and size != stored
            pixels = _rgb(ImageOps.exif_transpose(image) if turn else image)
    except FileNotFoundError:
        raise InputError(f"picture {str(path)!r}: no such file") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise InputError(f"picture {str(path)!r} cannot be decoded: {str(error) or type(error).__name__}") from error
    if size is not None and pixels.shape[:2] != tuple(size):
        raise _wrong_size(path, pixels.shape[:2], size)
    return pixels


def probe_image(path: str | Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Size of a picture from its first bytes, plus a look at its last: quick, as nothing is decoded.

    Args: as `load_image`. Returns: (height, width) that `load_image` would give.
    Raises: ValueError, as `load_image`; damage in the middle of a file is not seen.
    """
    try:
        with Image.open(path) as image:
            stored, upright = (image.height, image.width), _upright_size(image)
            mark = ENDS.get(image.format or "")
        whole = mark is None or mark in _tail(path)
    except FileNotFoundError:
        raise InputError(f"picture {str(path)!r}: no such file") from None
    except Exception as error:
        raise InputError(f"picture {str(path)!r} cannot be decoded: {str(error) or type(error).__name__}") from error
    if not whole or size not in (None, stored, upright):  # cut, something follows the picture, or EXIF comes late
        return load_image(path, size).shape[:2]
    return size or upright


def exif_turn(path: str | Path, size: tuple[int, int]) -> str:
    """Whether EXIF turns a picture, and which of the two its annotations mean: "none", "stored" or "upright"."""
    with Image.open(path) as image:
        if _orientation(image) == 1:
            return "none"
        return "stored" if (image.height, image.width) == size else "upright"


def _wrong_size(path: str | Path, found: tuple[int, int], size: tuple[int, int]) -> WrongSize:
    return WrongSize(
        f"picture {str(path)!r} is {found[1]} x {found[0]} px where the annotations say {size[1]} x {size[0]}; "
        "was it resized after it was annotated?"
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation as far as it is read; of a TIFF none is left, as Pillow turns it upright itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = Image.Image.getexif(image).get(0x0112, 1)  # a PNG's own getexif would decode, and hide damage
    except Exception:  # damaged EXIF beside a good picture
        return 1
    return value if value in range(1, 9) else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)


def _tail(path: str | Path) -> bytes:
    with open(path, "rb") as f:
        f.seek(max(0, f.seek(0, 2) - 1024))
        return f.read()


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
