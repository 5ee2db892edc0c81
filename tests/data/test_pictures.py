"""Every kind of picture becomes upright 8-bit RGB; damaged ones are named."""

import numpy as np
import pytest
from PIL import Image, ImageFile

from fairseg_lite.data.pictures import WrongSize, exif_turn, load_image, probe_image

H, W = 6, 9


def rgb(h=H, w=W) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


def save(path, image, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def test_rgb_is_itself(tmp_path):
    for name in ("a.png", "a.bmp", "a.tif", "a.webp"):
        path = save(tmp_path / name, rgb(), **({"lossless": True} if name.endswith("webp") else {}))
        np.testing.assert_array_equal(load_image(path), rgb())
        assert probe_image(path) == (H, W)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette(tmp_path, mode):
    image = Image.fromarray(rgb()).convert(mode)
    found = load_image(save(tmp_path / "a.png", image))
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    assert found.shape == (H, W, 3)
    if mode != "P":
        assert (found == found[..., :1]).all()


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    grey = np.random.default_rng(1).integers(0, 65536, (H, W)).astype(np.uint16)
    for path in (save(tmp_path / "a.png", grey), save(tmp_path / "a.tif", grey)):
        np.testing.assert_array_equal(load_image(path), np.repeat((grey // 256).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.full((2, 2), 70000, np.int32), "pixels go from 70000 to 70000; save it with 8 or 16 bits"),
        (np.full((2, 2), -1, np.int32), "pixels go from -1 to -1"),
        (np.ones((2, 2), np.float32), "floating-point numbers of unknown range"),
    ],
)
def test_pixels_without_a_range(tmp_path, pixels, message):
    with pytest.raises(ValueError, match=f"a.tif.*{message}"):
        load_image(save(tmp_path / "a.tif", pixels))


def test_transparent_pixels_lie_on_white(tmp_path):
    alpha = np.zeros((H, W), np.uint8)
    alpha[:, 3:6], alpha[:, 6:] = 255, 51
    path = save(tmp_path / "a.png", np.dstack([rgb(), alpha]))
    found = load_image(path).astype(float)
    assert (found[:, :3] == 255).all()
    np.testing.assert_array_equal(found[:, 3:6], rgb()[:, 3:6])
    np.testing.assert_allclose(found[:, 6:], 255 * 0.8 + 0.2 * rgb()[:, 6:], atol=1)


def test_transparency_of_grey_and_of_a_palette(tmp_path):
    grey = rgb()[..., 0]
    path = save(tmp_path / "la.png", Image.merge("LA", [Image.fromarray(grey), Image.new("L", (W, H), 0)]))
    assert (load_image(path) == 255).all()
    palette = Image.fromarray(grey % 2)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    found = load_image(save(tmp_path / "p.png", palette, transparency=1))
    colours = np.where((grey % 2)[..., None] == 1, [255, 255, 255], [10, 20, 30])
    np.testing.assert_array_equal(found, colours)


def test_cmyk(tmp_path):
    image = Image.new("RGB", (32, 32), (200, 30, 60)).convert("CMYK")
    found = load_image(save(tmp_path / "a.jpg", image, quality=95))
    np.testing.assert_allclose(found.reshape(-1, 3).mean(0), (200, 30, 60), atol=6)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (W, H), c) for c in ((255, 0, 0), (0, 0, 255))]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (load_image(path) == (255, 0, 0)).all()


TURNS = {  # what a viewer does with the stored pixels, by EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def rotated(path, orientation, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, pixels, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("shape", [(H, W), (7, 7)])
def test_exif_rotation(tmp_path, name, orientation, shape):
    upright = TURNS[orientation](rgb(*shape))
    path = rotated(tmp_path / name, orientation, rgb(*shape))
    ambiguous = upright.shape[:2] == shape and path.suffix != ".tif"  # then it is as stored; Pillow turns a TIFF itself
    for size in (None,) if ambiguous else (None, upright.shape[:2]):
        np.testing.assert_array_equal(load_image(path, size), upright)
        assert probe_image(path, size) == upright.shape[:2]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_annotations_of_the_stored_pixels_win_over_exif(tmp_path, orientation):
    path = rotated(tmp_path / "a.png", orientation, rgb())
    np.testing.assert_array_equal(load_image(path, (H, W)), rgb())
    assert probe_image(path, (H, W)) == (H, W) and exif_turn(path, (H, W)) == "stored"
    if orientation > 4:
        assert exif_turn(path, (W, H)) == "upright"
    assert exif_turn(save(tmp_path / "b.png", rgb()), (H, W)) == "none"


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_sixteen_bits_that_are_not_filled_are_scaled_by_their_range(tmp_path, bits):
    grey = (np.arange(256, dtype=np.uint16) << (bits - 8)).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png")[..., 1], np.arange(256).reshape(16, 16))


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    path = rotated(tmp_path / "a.png", 6, rgb())
    whole = path.read_bytes()
    at = whole.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(whole[at : at + 4], "big")
    path.write_bytes(whole[:at] + whole[end:-12] + whole[at:end] + whole[-12:])
    np.testing.assert_array_equal(load_image(path), np.rot90(rgb(), -1))
    assert probe_image(path, (W, H)) == (W, H)


def test_an_orientation_that_does_not_exist_is_ignored(tmp_path):
    np.testing.assert_array_equal(load_image(rotated(tmp_path / "a.png", 99, rgb())), rgb())


@pytest.mark.parametrize("read", [load_image, probe_image])
def test_another_size_than_annotated(tmp_path, read):
    path = save(tmp_path / "a.png", rgb())
    with pytest.raises(WrongSize, match=f"a.png' is {W} x {H} px where the annotations say 4 x 3; was it resized"):
        read(path, (3, 4))


@pytest.mark.parametrize("read", [load_image, probe_image])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_damaged_files_are_named(tmp_path, read, name):
    path = save(tmp_path / name, rgb(64, 64))
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[: len(whole) // 2], whole[:-100], b"<html>" + whole, bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"picture '.*{name}' cannot be decoded"):
            read(path)


@pytest.mark.parametrize("read", [load_image, probe_image])
def test_missing_file_or_folder(tmp_path, read):
    with pytest.raises(ValueError, match="a.png': no such file"):
        read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="cannot be decoded"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_bytes_after_the_picture_do_no_harm(tmp_path, name):
    path = save(tmp_path / name, rgb(64, 64))
    pixels = load_image(path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert probe_image(path) == (64, 64)
    np.testing.assert_array_equal(load_image(path), pixels)


def test_one_pixel(tmp_path):
    path = save(tmp_path / "a.png", rgb(1, 1))
    assert load_image(path).shape == (1, 1, 3)
    assert probe_image(path, (1, 1)) == (1, 1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_probing_decodes_nothing(tmp_path, monkeypatch, name):
    path = save(tmp_path / name, rgb())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert probe_image(path) == probe_image(path, (H, W)) == (H, W)
