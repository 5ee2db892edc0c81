"""Planted faults: each breaks one function of the library, and the lesson that teaches it must notice, in the cell named here.

    python -m tests.lessons.test_faults     the table of faults, and which cell notices

Only the cells that the noticing one needs are run, at smoke scale, in this process. A fault is caught if the cell passes with the
library as it is and fails with an AssertionError once the fault is there.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from tests.lessons.test_lessons import PATHS, code_cells, load, source

YOURS = "lesson.solution("  # a heart's cell: the library's own version has to pass the check there
HOLES = "the network's score is the paper's"


def no_holes(init: Callable) -> Callable:
    """DeepMask's constructor, with the interleaving of the first paper's score branch undone."""

    def made(self, *values, **options):
        init(self, *values, **options)
        if self.head == "branches":
            self.score_embed.dilation = (1, 1)

    return made


def repeated(_: Callable) -> Callable:
    return lambda x, mode: x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def one_class(suppress: Callable) -> Callable:
    return lambda boxes, scores, labels, overlap: suppress(boxes, scores, labels * 0, overlap)


class Fault(NamedTuple):
    """What is broken where, and a piece of the cell that notices."""

    lesson: str
    path: str  # module below fairseg_lite, and function
    change: tuple[str, str] | Callable  # a piece of its source and what replaces it, or a function of the function
    notices: str


FAULTS = [
    Fault("01", "geometry.masks:mask_to_box", ("w - cols.flip", "w - 1 - cols.flip"), "the library's boxes are ours"),
    Fault("01", "geometry.masks:mask_iou", ("area_b - common", "area_b"), "three ways, the same numbers"),
    Fault("01", "geometry.masks:rle_decode", ("% 2 == 1", "% 2 == 0"), "nothing is lost"),
    Fault("01", "data.patches:canonical", ("max(x2 - x1, y2 - y1)", "min(x2 - x1, y2 - y1)"), "the library disagrees on"),
    Fault("01", "data.patches:crop_mask", ("window.x - side / 2, window.y", "window.x, window.y"), "and centred"),
    Fault("01", "data.patches:is_negative", ("return all(", "return any("), YOURS),
    Fault("02", "models.trunks:Basic.forward", ("F.relu(y + (x if", "(F.relu(y) + (x if"), YOURS),
    Fault("02", "models.deepmask:DeepMask.heads", ("F.relu(self.reduce(x))", "self.reduce(x)"), "our_masks, masks"),
    Fault("02", "geometry.pixels:symmetric_pad", ("2 * n - 1 - i", "(2 * n - 2 - i).clamp(min=0)"), "pixels.symmetric_pad"),
    Fault("03", "models.losses:mask_loss", ("positive = labels > 0", "positive = labels < 9"), "three ways to write one loss"),
    Fault("03", "models.losses:deepmask_loss", ("score_weight * score,", "score,"), "torch.allclose(ours, theirs.total)"),
    Fault("03", "models.losses:deepmask_loss", ('"mask": mask,', '"mask": mask + score,'), "both, mask_only, score_only"),
    Fault("04", "inference.propose:best_windows", ("cell // columns, cell %", "cell % columns, cell //"), YOURS),
    Fault("04", "inference.propose:on_canvas", ("half = patch_size // 2", "half = 0"), "dense.scores.numel() == len(corners)"),
    Fault("04", "models.deepmask:DeepMask.__init__", no_holes, HOLES),
    Fault("05", "evaluation.recall:_count", ("[:, :k]", ""), "our count is what the judge itself"),
    Fault("05", "course.baselines:sliding_boxes", ("2 ** (level / 2)", "2**level"), "the built one is the library's"),
    Fault("06", "models.refinement:_doubled", repeated, "our module is"),
    Fault("06", "models.refinement:NaiveRefinementModule.forward", ("F.relu(self.join(both))", "self.join(both)"), YOURS),
    Fault("06", "evaluation.boundary:squared_distance", ("+ k * k", "+ k"), "two ways to find a band"),
    Fault("06", "evaluation.boundary:trimap_iou", ("squared <= d * d", "squared < d * d"), "ours and the library's"),
    Fault("07", "models.refinement:refactor", ("bias.zero_()", "bias.copy_(join.bias)"), YOURS),
    Fault("07", "models.refinement:doubled_conv", ("pixel_shuffle(y, 2)", "pixel_shuffle(y.flip(1), 2)"), "and the same masks"),
    Fault("07", "models.sharpmask:SharpMask._refined", (":, rows, cols]", ":, cols, rows]"), "and the same masks"),
    Fault("08", "geometry.boxes:encode_boxes", ("torch.log(target_sides", "(target_sides"), "ours and the library's"),
    Fault("08", "data.rois:draw", ("(round(count * fg_fraction), count, count)", "(count, count, count)"), YOURS),
    Fault("08", "evaluation.precision:average_precision", ("max(precision[i], precision[i + 1])", "precision[i]"), '"08.average'),
    Fault("08", "models.losses:multipath_loss", ("found = labels > 0", "found = labels >= 0"), "by_hand = F.cross_entropy"),
    Fault("09", "geometry.boxes:foveal_boxes", ("[-sides, sides]", "[-sides, sides.flip(-1)]"), "ours and the library's"),
    Fault("09", "models.roi_pooling:Mix.forward", ("[_of_length(self.scale, x) for x in levels]", "levels"), YOURS),
    Fault("09", "models.roi_pooling:_of_length", ("x.flatten(1)", "x.flatten(2)"), "now each is heard"),
    Fault("10", "models.losses:multipath_loss", ("counted).mean()\n    return", "counted).sum()\n    return"), YOURS),
    Fault("10", "models.multipathnet:probabilities", (".mean(0)", "[0]"), "four of six"),
    Fault("11", "geometry.boxes:vote_boxes", (" * scores", ""), YOURS),
    Fault("11", "inference.detect:mirrored", ("width - x2, y1, width - x1", "x1, y1, x2"), "flip and crops: ours"),
    Fault("11", "inference.detect:batched_nms", one_class, "ours and the"),
    Fault("13", "training.detector:by_name", ("[1 + list(old)", "[list(old)"), YOURS),
    Fault("13", "training.detector:renamed", ("by_name(known, other.expand_as(begin), old, categories)", "begin"), "ours and"),
    Fault("12", "training.shards:Parts.backward", ("/ n if n > 1", "if n > 1"), "our parts and the library's"),
    Fault("12", "training.shards:Batches.__getitem__", ("self.own[k]", "self.own[0]"), "our parts and the library's"),
]  # fmt: skip
IDS = [f"{f.lesson}-{f.path.rpartition(':')[2]}-{n}" for n, f in enumerate(FAULTS)]


def names(code: str) -> tuple[set[str], set[str]]:
    """What a cell binds or changes, and what it reads; what lives in a comprehension alone is neither."""
    bound, read, tree = set(), set(), ast.parse(code)
    inner = {n for c in ast.walk(tree) if isinstance(c, ast.comprehension) for n in ast.walk(c.target) if isinstance(n, ast.Name)}
    for node in ast.walk(tree):
        if node in inner:
            continue
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        changed = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else node
        if isinstance(changed, ast.Attribute | ast.Subscript) and (changed is not node or not isinstance(node.ctx, ast.Load)):
            while isinstance(changed, ast.Attribute | ast.Subscript | ast.Call):
                changed = changed.func if isinstance(changed, ast.Call) else changed.value
            bound |= {changed.id} - {"lesson"} if isinstance(changed, ast.Name) else set()  # which only shows and asks
    return bound, read - ({n.id for n in inner} - bound)


@functools.cache
def cells_for(lesson: str, piece: str) -> tuple[str, ...]:
    """The set-up, what the cell with this piece needs, and that cell: code to run in order."""
    path = next(p for p in PATHS if p.stem.startswith(lesson))
    cells = [re.sub(r"^(\s*)%.*", r"\1pass", source(c), flags=re.M) for c in code_cells(load(path))]
    last = next(i for i, cell in enumerate(cells) if piece in cell)
    chosen, needed, more = {0, last}, names(cells[last])[1], True
    while more:  # a function may need one that a later cell defines
        new = {i for i in range(last) if i not in chosen and names(cells[i])[0] & needed}
        chosen |= new
        needed |= set().union(*(names(cells[i])[1] for i in new))
        more = bool(new)
    return tuple(cells[i] for i in sorted(chosen))


def quick(**ways: Callable) -> dict[str, float]:
    """Stands for lesson.timed: nothing is timed, and each way is said to be faster than the one before."""
    return {name: 1 / 9**i for i, name in enumerate(ways)}


def run(lesson: str, piece: str) -> None:
    """Run the cells; sources are not shown and nothing is timed."""
    scope: dict = {"__name__": "__main__"}
    without = mock.patch.multiple("fairseg_lite.course.lesson", timed=quick, show_source=repr)
    with contextlib.redirect_stdout(io.StringIO()), without:
        for cell in cells_for(lesson, piece):
            exec(cell, scope)


@contextlib.contextmanager
def planted(path: str, change: tuple[str, str] | Callable):
    """The library with one function broken, wherever it is imported."""
    place, _, name = path.partition(":")
    module = importlib.import_module(f"fairseg_lite.{place}")
    *above, name = name.split(".")
    owner = functools.reduce(getattr, above, module)
    right = getattr(owner, name)
    if callable(change):
        wrong = change(right)
    else:
        text, scope = textwrap.dedent(inspect.getsource(right)), dict(vars(inspect.getmodule(right)))
        assert change[0] in text, f"{path} has no {change[0]!r} any more"
        exec(compile(text.replace(*change), f"<{path}>", "exec"), scope)
        wrong = scope[name]
    places = [m for k, m in sys.modules.items() if k.startswith("fairseg_lite") and vars(m).get(name) is right] or [owner]
    with contextlib.ExitStack() as stack:
        for where in places:
            stack.enter_context(mock.patch.object(where, name, wrong))
        yield


@functools.cache
def passes(lesson: str, piece: str) -> bool:
    run(lesson, piece)
    return True


@pytest.fixture(autouse=True)
def _smoke(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRSEG_SCALE", "smoke")
    monkeypatch.chdir(tmp_path)


def test_there_are_faults_enough_and_in_every_lesson_with_a_heart():
    assert len(FAULTS) >= 25 and len({(f.path, str(f.change)) for f in FAULTS}) == len(FAULTS)
    assert {f.lesson for f in FAULTS} == {f"{n:02d}" for n in range(1, 14)}


def test_what_a_cell_needs_is_found():
    assert names("import a.b as c\nfrom d import e\nf = g(h)\nf.x = 1\ni[0] += 1\nj.k_()") == (set("cefij"), set("ghfij"))
    assert names("a = [b for b in c]\nfor d in a: e = d") == (set("ade"), set("acd")), "b is of no other cell"


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_the_cell_that_notices_is_there_and_the_fault_can_be_planted(fault):
    assert len(cells_for(fault.lesson, fault.notices)) > 1
    with planted(fault.path, fault.change):
        pass


FULL = os.environ.get("FAIRSEG_SCALE") == "lesson"


@pytest.mark.skipif(not FULL, reason="`course.py test --full` plants every fault")
@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_the_lesson_notices(fault):
    assert passes(fault.lesson, fault.notices)
    with planted(fault.path, fault.change), pytest.raises(AssertionError):
        run(fault.lesson, fault.notices)


if __name__ == "__main__":
    for f in FAULTS:
        what = f.change.__name__ if callable(f.change) else " -> ".join(map(repr, f.change))
        print(f"{f.lesson}  {f.path:50} {what[:70]:70}  {f.notices}")
    print(len(FAULTS), "faults; lessons live in", Path(PATHS[0]).parent.name)
