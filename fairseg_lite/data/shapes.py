"""Scenes that need no download: textured, overlapping shapes on textured ground, with exact masks.

Scene i is a pure function of (seed, i, size), in integers: the same pixels on every machine. Made to be a test,
not a decoration: sizes span a factor of ten, a third of the objects have almost the ground's colour, objects hide one
another (masks are the visible part), some have holes, and two categories look the same from within: a *coin* lies in a
ring of dots, a *sun* has rays, and both begin outside the object's own box. Only a wider look (MultiPathNet's foveal
regions) tells them apart.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from fairseg_lite.data.scenes import InstanceTable, Scene, SceneCache, tabulate
from fairseg_lite.errors import InputError

ONE = 1024  # one object radius, in the integer coordinates of an object
ANGLES = 64
COS = [round(4096 * math.cos(2 * math.pi * k / ANGLES)) for k in range(ANGLES)]  # integers: the same everywhere
SIN = [round(4096 * math.sin(2 * math.pi * k / ANGLES)) for k in range(ANGLES)]
TIPS = [((1024, 420)[i % 2], i * ANGLES // 10) for i in range(10)]  # radius and angle of a star's corners
STAR = [(radius * COS[k] // 4096, radius * SIN[k] // 4096) for radius, k in TIPS]
INSIDE = {  # which points of an object's own coordinates belong to it
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 760,
    "triangle": lambda u, v: (v <= 512) & (abs(u) * 1774 <= (v + ONE) * 1024),
    "star": lambda u, v: _polygon(STAR, u, v),
    "cross": lambda u, v: (np.maximum(abs(u), abs(v)) <= 930) & (np.minimum(abs(u), abs(v)) <= 310),
    "crescent": lambda u, v: (u * u + v * v <= ONE**2) & ((u - 480) ** 2 + v * v >= 780**2),
    "ring": lambda u, v: (u * u + v * v <= ONE**2) & (u * u + v * v >= 540**2),
    "frame": lambda u, v: (np.maximum(abs(u), abs(v)) <= 800) & (np.maximum(abs(u), abs(v)) >= 420),
    "coin": lambda u, v: u * u + v * v <= ONE**2,
    "sun": lambda u, v: u * u + v * v <= ONE**2,
}
CATEGORIES = tuple(INSIDE)
PALETTE = np.array(
    [(222, 143, 5), (86, 180, 233), (2, 158, 115), (213, 94, 0), (204, 121, 167), (1, 115, 178), (236, 225, 51),
     (150, 150, 150), (120, 84, 60), (240, 228, 200), (70, 80, 96), (160, 190, 140)], np.int32,
)  # fmt: skip
MIN_VISIBLE = 35  # per cent of an object's pixels, below which it is not drawn at all


class ShapesDataset:
    """A dataset of generated scenes.

    Args:
        length, size: number of scenes; picture side in pixels, or (height, width).
        seed: another seed is another dataset; the course trains on seed 0 and holds out seed 1.
    Raises: InputError, a negative length, a seed below 0, or a side under 64 px.
    Example:
        >>> scene = ShapesDataset(3, seed=0)[2]
        >>> scene.image.shape, scene.image.dtype, 2 <= len(scene.masks) <= 10
        ((192, 192, 3), dtype('uint8'), True)

    Source: ours. Lesson: 01.
    """

    categories: tuple[str, ...] = CATEGORIES
    category_ids = tuple(range(1, len(CATEGORIES) + 1))

    def __init__(self, length: int, *, seed: int = 0, size: int | tuple[int, int] = 192):
        self.height, self.width = (size, size) if isinstance(size, int) else size
        if length < 0 or seed < 0:
            raise InputError(f"length is {length} and seed {seed}; neither may be negative")
        if min(self.height, self.width) < 64:
            raise InputError(f"size is {self.height} x {self.width} px; shapes of 12 px need at least 64 px a side")
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        return self.drawn(index)

    def drawn(self, index: int, times: int = 1) -> Scene:
        """Scene `index` with more pixels: the same objects in the same places, drawn finer. Networks are shown `self[index]`.

        Args: times: pixels a side for each one of `self[index]`: 2 for figures.
        Example:
            >>> scenes = ShapesDataset(3)
            >>> (scenes.drawn(2, 2).boxes / 2 - scenes[2].boxes).max() < 2, scenes.drawn(2, 2).image.shape
            (np.True_, (384, 384, 3))
        """
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        g = np.random.Generator(np.random.PCG64([self.seed, index, self.height, self.width]))
        objects: list[dict] = []
        while len(objects) < 2:  # a layout whose objects hide each other is drawn again
            objects = _layout(g, self.height, self.width)
        if times > 1:
            objects = _finer(objects, times, self.height * times, self.width * times)
        image = _paint(g, objects, self.height * times, self.width * times)
        return Scene(
            image=image,
            masks=np.stack([o["visible"] for o in objects]),
            labels=np.array([o["label"] for o in objects], np.int64),
            crowd=np.zeros(len(objects), bool),
            image_id=index + 1,
            file_name=f"{index:06d}.png",
            annotation_ids=np.arange(len(objects), dtype=np.int64) + 100 * (index + 1),
        )

    @property
    def image_ids(self) -> range:
        """Of every scene, in order."""
        return range(1, self.length + 1)

    def picture_key(self, index: int) -> str:
        """What a scene depends on."""
        return f"shapes {self.seed} {index} {self.height} {self.width}"

    @cached_property
    def instances(self) -> InstanceTable:
        """Needs every scene once; several seconds a thousand."""
        scenes = tqdm(range(self.length), desc="drawing scenes", unit="scene", disable=self.length < 200, leave=False)
        return tabulate([_without_masks(self[i]) for i in scenes])

    def cached(self) -> SceneCache:
        """The same dataset, remembering drawn scenes."""
        return SceneCache(self)


def _without_masks(scene: Scene) -> Scene:
    _ = scene.boxes, scene.areas  # computed once, kept; the pixels go
    small = replace(scene, image=scene.image[:0], masks=scene.masks[:, :0])
    small.__dict__.update(boxes=scene.boxes, areas=scene.areas)
    return small


def _layout(g: np.random.Generator, h: int, w: int) -> list[dict]:
    """Objects from the lowest to the topmost, each with its visible mask; hidden ones are left out."""
    drawn: list[dict] = []
    largest = 2 * min(h, w) // 3
    for _ in range(int(g.integers(2, 12))):
        # diameters 13 px .. 2/3 of the short side, evenly in log2: 256 steps between powers of the ratio
        diameter = round(13 * (largest / 13) ** (int(g.integers(0, 257)) / 256))
        x, y = int(g.integers(0, w)), int(g.integers(0, h))
        if drawn and g.integers(0, 3) == 0:  # beside or on the one before
            reach = drawn[-1]["radius16"] // 16 + diameter // 2
            x = int(np.clip(drawn[-1]["x"] + g.integers(-reach, reach + 1), 0, w - 1))
            y = int(np.clip(drawn[-1]["y"] + g.integers(-reach, reach + 1), 0, h - 1))
        label = int(g.integers(0, len(CATEGORIES)))
        o = {"label": label, "x": x, "y": y, "radius16": diameter * 8, "angle": int(g.integers(0, ANGLES))}
        o["squeeze"] = 1024 if CATEGORIES[label] in ("coin", "sun") else int(g.integers(620, 1025))
        drawn.append(o | _masks(o, h, w))
    taken = np.zeros((h, w), bool)
    kept: list[dict] = []
    for o in reversed(drawn):
        visible = o["mask"] & ~taken
        around = o["around"] & ~taken
        if visible.sum() * 100 < MIN_VISIBLE * o["pixels"] or around.sum() * 100 < MIN_VISIBLE * o["around_pixels"]:
            continue
        if len(kept) < 10:
            taken |= o["mask"]
            kept.append(o | {"visible": visible})
    return kept[::-1]


def _finer(objects: list[dict], times: int, h: int, w: int) -> list[dict]:
    """The same objects, from the lowest to the topmost, in a picture with more pixels."""
    taken, fine = np.zeros((h, w), bool), []
    for o in reversed(objects):
        o = o | {key: times * o[key] for key in ("x", "y", "radius16")}
        o |= _masks(o, h, w)
        fine.append(o | {"visible": o["mask"] & ~taken})
        taken |= o["mask"]
    return fine[::-1]


def _coordinates(o: dict, reach: int, h: int, w: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """The object's own coordinates (ONE = its radius) on the window of `reach` / 1024 radii around its centre."""
    r = o["radius16"] * reach // (16 * ONE) + 2
    rows, cols = slice(max(o["y"] - r, 0), min(o["y"] + r, h)), slice(max(o["x"] - r, 0), min(o["x"] + r, w))
    dy = (2 * np.arange(rows.start, rows.stop) + 1 - 2 * o["y"])[:, None]  # half pixels from the centre
    dx = (2 * np.arange(cols.start, cols.stop) + 1 - 2 * o["x"])[None]
    c, s = COS[o["angle"]], SIN[o["angle"]]
    u = (dx * c + dy * s) * 2 // o["radius16"]  # half px * 4096 * 2 / (radius * 16) = ONE * px / radius
    v = (dy * c - dx * s) * 2 * 1024 // (o["radius16"] * o["squeeze"])
    return rows, cols, u, v


def _around(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Dots around a coin, rays around a sun: outside the object's box (corner: 1.42 radii), inside twice the box."""
    marks = np.zeros(np.broadcast(u, v).shape, bool)
    for k in range(0, ANGLES, 8):
        along, across = (u * COS[k] + v * SIN[k]) >> 12, (v * COS[k] - u * SIN[k]) >> 12
        if name == "coin":
            marks |= (along - 1680) ** 2 + across**2 <= 170**2
        elif name == "sun":
            marks |= (along >= 1490) & (along <= 1990) & (abs(across) <= 90)
    return marks


def _polygon(points: list[tuple[int, int]], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    inside = np.zeros(np.broadcast(u, v).shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        crosses = (ay > v) != (by > v)
        left = (u - ax) * (by - ay) < (v - ay) * (bx - ax) if by > ay else (u - ax) * (by - ay) > (v - ay) * (bx - ax)
        inside ^= crosses & left
    return inside


def _masks(o: dict, h: int, w: int) -> dict:
    """Object and surroundings as full pictures, and their sizes had the picture no border."""
    name = CATEGORIES[o["label"]]
    parts: dict[str, Any] = {"around": np.zeros((h, w), bool), "around_pixels": 0}
    tests: dict[str, tuple[Callable, int]] = {"mask": (INSIDE[name], ONE)}
    if name in ("coin", "sun"):
        tests["around"] = partial(_around, name), 2 * ONE
    for key, (test, reach) in tests.items():
        r = o["radius16"] * reach // (16 * ONE) + 2
        _, _, u, v = _coordinates(o | {"x": r, "y": r}, reach, 2 * r, 2 * r)
        wide = np.zeros((h + 2 * r, w + 2 * r), bool)  # room for all of it
        wide[o["y"] : o["y"] + 2 * r, o["x"] : o["x"] + 2 * r] = test(u, v)
        parts |= {key: wide[r : r + h, r : r + w], "pixels" if key == "mask" else "around_pixels": int(wide.sum())}
    return parts


def _paint(g: np.random.Generator, objects: list[dict], h: int, w: int) -> np.ndarray:
    y, x = np.arange(h)[:, None], np.arange(w)[None]
    ground = _colour(g)
    image = _texture(g, ground, x * 1024 // min(h, w), y * 1024 // min(h, w), contrast=60)
    cloud = _upsampled(g.integers(-36, 37, (7, 7)), h, w)  # light and shade over the ground
    image = image + cloud[:, :, None]
    for o in objects:  # marks lie on the ground, under every object
        if o["around_pixels"]:
            image[o["around"]] = np.where(ground.sum() > 380, ground - 90, ground + 90)
    for o in objects:
        rows, cols, u, v = _coordinates(o, ONE, h, w)
        camouflage = g.integers(0, 3) == 0
        colour = ground + g.integers(-22, 23, 3) if camouflage else _colour(g)
        patch = _texture(g, colour, u, v, contrast=80)
        patch = patch - ((u * int(g.integers(-28, 29)) + v * int(g.integers(-28, 29))) >> 10)[:, :, None]  # shading
        inside = o["mask"][rows, cols]
        image[rows, cols][inside] = patch[inside]
    image = np.clip(image + g.integers(-9, 10, (h, w, 3), dtype=np.int8), 0, 255)
    # a lens: (1, 2, 1) / 4 in both directions softens the stairs of the outlines
    image = np.pad(image.astype(np.uint16), ((1, 1), (1, 1), (0, 0)), "edge")
    image = image[:-2] + 2 * image[1:-1] + image[2:]
    image = image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:]
    return (image >> 4).astype(np.uint8)


def _colour(g: np.random.Generator) -> np.ndarray:
    return PALETTE[g.integers(0, len(PALETTE))] + g.integers(-25, 26, 3).astype(np.int32)


def _texture(g: np.random.Generator, colour: np.ndarray, u: np.ndarray, v: np.ndarray, *, contrast: int) -> np.ndarray:
    """(H, W, 3) int32: plain, stripes, checks, blobs or dots in two shades of one colour."""
    kind, period = int(g.integers(0, 5)), int(g.integers(140, 420))
    depth = int(g.integers(contrast // 3, contrast)) * (1 if g.integers(0, 2) else -1)
    shape = np.broadcast(u, v).shape
    level: np.ndarray
    if kind == 0:
        level = np.zeros(shape, np.int32)
    elif kind == 1:
        level = np.broadcast_to(((u + v * int(g.integers(0, 2))) // period) & 1, shape)
    elif kind == 2:
        level = (u // period + v // period) & 1
    elif kind == 3:
        level = _upsampled(g.integers(0, 2, (9, 9)) * 256, *shape) > 128
    else:
        level = (u % period - period // 2) ** 2 + (v % period - period // 2) ** 2 < (period // 3) ** 2
    return colour.astype(np.int32) + (level.astype(np.int32) * depth)[:, :, None]


def _upsampled(grid: np.ndarray, h: int, w: int) -> np.ndarray:
    """A coarse grid as a smooth picture, bilinear in integers."""

    def weights(n: int, cells: int) -> np.ndarray:
        at = np.arange(n) * (cells - 1) * 256 // max(n - 1, 1)
        m = np.zeros((n, cells), np.int32)
        low = np.minimum(at // 256, cells - 2)
        m[np.arange(n), low] = 256 - (at - 256 * low)
        m[np.arange(n), low + 1] = at - 256 * low
        return m

    return (weights(h, grid.shape[0]) @ grid.astype(np.int32) @ weights(w, grid.shape[1]).T) >> 16
