"""Proposals: the right window, in the right place, best first, whatever the picture."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn

from fairseg_lite.data.photos import photographs
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.geometry.masks import mask_to_box, paste_masks, rle_encode
from fairseg_lite.inference.found import FIRM, NEW, Proposals, load_results, reranked
from fairseg_lite.inference.propose import Level, best_windows, on_canvas, paste_rle, prepare, propose, pyramid, resized
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.deepmask import DenseFeatures, deepmask_tiny
from fairseg_lite.models.network import Network


class Spotlight(Network):
    """A stand-in network: a window's score is the brightness at its centre, its mask is the whole window."""

    patch_size, stride, mask_size, scales = 32, 16, 4, (0.5, 1.0)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.seen: list = []
        self.eval()  # nothing is left to prepare: `propose` takes this object itself

    def dense(self, canvas, timer=nullcontext):
        self.seen.append(tuple(canvas.shape[-2:]))
        h, w = (-(-n // 16) - 1 for n in canvas.shape[-2:])
        score = nn.functional.avg_pool2d(canvas.mean(1, keepdim=True), 5, 1, 2)[0, :, 16::16, 16::16][:, :h, :w]
        return DenseFeatures(canvas, None, score)

    def masks_at(self, dense, batch, rows, cols):
        return torch.ones(len(rows), 4, 4)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return prepare(deepmask_tiny())


@pytest.fixture(scope="module")
def image():
    return ShapesDataset(1, seed=3)[0].image


@pytest.mark.parametrize("row, col", [(0, 0), (3, 5), (7, 2), (4, 9)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_best_window_lies_on_the_light(row, col, scale):
    picture = np.zeros((128, 160, 3), np.uint8)
    y, x = row * 16 / scale, col * 16 / scale  # where window (row, col) is centred
    if y >= 128 or x >= 160:
        pytest.skip("outside the picture at this scale")
    picture[max(int(y) - 3, 0) : int(y) + 4, max(int(x) - 3, 0) : int(x) + 4] = 255
    best = propose(Spotlight(), picture, scales=[scale], top_k=1)
    assert best.positions[0].tolist() == [row, col]
    half = 16 / scale
    wanted = torch.tensor([x - half, y - half, x + half, y + half]).clamp(min=0)
    wanted[2:] = torch.minimum(wanted[2:], torch.tensor([160.0, 128.0]))
    assert torch.equal(best.boxes[0], wanted)


def test_best_windows_against_a_loop():
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, h, w, generator=g) for h, w in ((3, 4), (5, 2), (1, 1))]
    levels = [Level((1, 1), DenseFeatures(m, None, m)) for m in maps]
    cells = [(m[0, r, c].item(), i, r, c) for i, m in enumerate(maps) for r in range(m.shape[1]) for c in range(m.shape[2])]
    wanted = sorted(cells, reverse=True)
    got = list(zip(*(t.tolist() for t in best_windows(levels, 100)), strict=True))
    assert got == wanted  # all 23 of them, although 100 were asked for
    assert list(zip(*(t.tolist() for t in best_windows(levels, 5)), strict=True)) == wanted[:5]


def test_a_level_may_begin_behind_others():
    maps = [torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[2.0, 0.5]]])]
    levels = [Level((1, 1), DenseFeatures(m, None, m)) for m in maps]
    scores, level, _, cols = best_windows(levels, 3, [-1.5, 0])
    assert (scores.tolist(), level.tolist(), cols.tolist()) == ([2.0, 1.5, 0.5], [1, 0, 1], [0, 0, 1])


def windows(*masks):
    """(N, 8, 8) logits and (N, 4) windows that cover a picture of 8 x 8 px; each mask is (logit, first column, last column)."""
    logits = torch.full((len(masks), 8, 8), -9.0)
    for one, (logit, first, last) in zip(logits, masks, strict=True):
        one[:, first:last] = logit
    return logits, torch.tensor([[0.0, 0, 8, 8]]).repeat(len(masks), 1)


def test_a_firm_mask_goes_before_a_loose_one():
    loose = torch.linspace(-0.9, 2.0, 8).expand(8, 8)  # no column is beyond doubt, and none out of the question
    logits, boxes = windows((9, 0, 4), (9, 4, 8))
    order, worth = reranked(torch.tensor([1.0, 0.0]), torch.stack([loose, logits[1]]), boxes, (8, 8), 0.0, 2)
    assert order.tolist() == [1, 0] and worth[0] > worth[1]
    order, _ = reranked(torch.tensor([1.0, 0.0]), logits, boxes, (8, 8), 0.0, 2)
    assert order.tolist() == [0, 1], "of two firm ones the better-scored one"


def test_a_repeat_goes_behind_what_is_new_and_stays_in_the_list():
    logits, boxes = windows((9, 0, 4), (9, 0, 4), (9, 4, 8), (9, 0, 3))
    order, worth = reranked(torch.tensor([4.0, 3.0, 0.0, 1.0]), logits, boxes, (8, 8), 0.0, 4)
    assert order.tolist() == [0, 2, 3, 1] and worth.diff().lt(0).all()
    gaps = {int(i): w for i, w in zip(order, worth.tolist(), strict=True)}
    per_unit = (gaps[0] - gaps[2]) / 4
    torch.testing.assert_close((gaps[0] - gaps[1]) / per_unit, 1 + NEW)  # an IoU of 1
    torch.testing.assert_close((gaps[0] - gaps[3]) / per_unit, 3 + NEW * 0.75**2, atol=0.2, rtol=0)
    assert reranked(torch.tensor([4.0, 3.0, 0.0, 1.0]), logits, boxes, (8, 8), 0.0, 2)[0].tolist() == [0, 2]


def test_an_empty_mask_goes_last():
    logits, boxes = windows((9, 0, 4), (-9, 0, 4), (9, 5, 8))
    order, _ = reranked(torch.tensor([0.0, 4.0, -5.0]), logits, boxes, (8, 8), 0.0, 3)
    assert order.tolist() == [0, 2, 1] and 4 - 2 * FIRM * np.log(99) < -5


def test_networks_for_photographs_rerank_and_others_do_not(image):
    model, photo = prepare(load_model("photos-sharp"), dtype=torch.bfloat16), photographs()[21].image
    assert model.record.rerank and model.deepmask.record.rerank and not load_model("shapes").record.rerank
    found, plain = propose(model, photo, top_k=10), propose(model, photo, top_k=10, rerank=False)
    assert len(found) == 10 and found.scores.diff().le(0).all() and found.scores.gt(0).all() and found.scores.lt(1).all()

    def repeats(some):
        return int((np.triu(coco_mask.iou(some.rle, some.rle, [0] * len(some)), 1) > 0.8).sum())

    assert repeats(found) == 0 < repeats(plain), "ten masks show ten things here"
    assert propose(model, photo, top_k=5).rle == found.rle[:5], "how many are asked for does not change which come first"


def test_result_is_sorted_and_whole(tiny, image):
    found = propose(tiny, image, top_k=30)
    assert 0 < len(found) <= 30 and found.size == (192, 192)
    assert found.scores.diff().le(0).all() and found.scores.gt(0).all() and found.scores.lt(1).all()
    masks = found.masks()
    assert masks.shape == (len(found), 192, 192) and masks.flatten(1).any(1).all()
    assert torch.equal(mask_to_box(masks), found.boxes)
    assert torch.equal(found[2:5].masks(), masks[2:5]) and len(found[torch.tensor([1])]) == 1


def test_a_higher_threshold_takes_pixels_away(tiny, image):
    low, high = (propose(tiny, image, top_k=10, threshold=t) for t in (0.3, 0.6))
    where = {(s.item(), *p.tolist()): m for s, p, m in zip(low.scales, low.positions, low.masks(), strict=True)}
    compared = 0
    for s, p, m in zip(high.scales, high.positions, high.masks(), strict=True):
        assert not (m & ~where[(s.item(), *p.tolist())]).any()
        compared += 1
    assert compared and sum(m.sum() for m in where.values()) > high.masks().sum()


def test_nms_leaves_boxes_apart(tiny, image):
    from torchvision.ops import box_iou

    found = propose(tiny, image, top_k=20, nms=0.3)
    iou = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
    assert iou.max() <= 0.3 and propose(tiny, image, top_k=20).scores[0] == found.scores[0]


def test_zoom_adds_larger_scales():
    model = Spotlight()
    found = propose(model, np.zeros((64, 64, 3), np.uint8), zoom=2, top_k=10_000)
    assert sorted(set(found.scales.tolist())) == pytest.approx([0.5, 1, 2**0.5, 2])


def test_pictures_beyond_coco_have_coarser_scales_for_their_larger_objects():
    model, spot = Spotlight(), {}
    for longest in (640, 641, 905, 906, 1024, 5000):
        found = propose(model, np.zeros((40, longest, 3), np.uint8), top_k=10_000)
        spot[longest] = sorted({round(s, 3) for s in found.scales.tolist()})
    assert spot[640] == [0.5, 1] and spot[641] == spot[905] == [0.354, 0.5, 1]
    assert spot[906] == spot[1024] == spot[5000] == [0.25, 0.354, 0.5, 1], "5000 px are reduced to 1024 first"
    found = propose(model, np.zeros((40, 1000, 3), np.uint8), scales=[0.5], top_k=10_000)
    assert set(found.scales.tolist()) == {0.5}, "scales that were asked for stay as they are"


def test_an_object_that_fills_a_large_photograph_is_found():
    photo = photographs()[22]  # an otter as wide as the picture
    size = photo.image.shape[1] * 1024 // max(photo.image.shape), photo.image.shape[0] * 1024 // max(photo.image.shape)
    image = np.asarray(Image.fromarray(photo.image).resize(size, Image.Resampling.LANCZOS))
    truth = coco_mask.encode(np.asfortranarray(Image.fromarray(photo.masks[0].astype(np.uint8)).resize(size)))
    model = load_model("photos-sharp")

    def best(scales):
        found = propose(model, image, top_k=10, scales=scales, dtype=torch.bfloat16)
        return coco_mask.iou(found.rle, [truth], [0]).max()

    few, all_of = best(model.scales), best(None)
    print(f"IoU {few:.2f} with the scales for COCO, {all_of:.2f} with the coarser ones")
    assert few < 0.3 and all_of > 0.7


def test_large_pictures_are_reduced_and_masks_are_not():
    model = Spotlight()
    found = propose(model, np.zeros((3000, 4000, 3), np.uint8), top_k=3)
    assert max(max(s) for s in model.seen) == 1024 + 32
    assert found.size == (3000, 4000) and found[:1].masks().shape == (1, 3000, 4000)
    propose(model, np.zeros((3000, 4000, 3), np.uint8), top_k=1, max_side=100)
    assert max(model.seen[-1]) == 144  # 132, rounded up to the stride


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (20, 20)])
def test_pictures_smaller_than_a_patch(tiny, size):
    found = propose(tiny, np.full((*size, 3), 90, np.uint8), top_k=4)
    assert found.size == size and found.masks().shape[1:] == size


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": np.zeros((4, 4), np.uint8)}, r"picture is uint8 \(4, 4\); wanted"),
        ({"image": np.zeros((4, 4, 3))}, "picture is float64"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "at least 1"),
        ({"image": "a.jpg"}, "picture is str"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"threshold": 1.0}, "threshold is 1.0; it is a probability"),
        ({"nms": 2.0}, "nms is 2.0"),
        ({"scales": [0.5, -1]}, "all above 0"),
        ({"zoom": 9}, "zoom is 9"),
    ],
)
def test_bad_input_is_named(tiny, change, message):
    arguments = {"image": np.zeros((8, 8, 3), np.uint8)} | change
    with pytest.raises(ValueError, match=message):
        propose(tiny, arguments.pop("image"), **arguments)


def test_coco_round_trip(tiny, image, tmp_path):
    found = propose(tiny, image, top_k=8)
    rows = found.to_coco(7) + propose(tiny, image[:100], top_k=2).to_coco(3)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows), "utf-8")
    back = load_results(path)
    assert sorted(back) == [3, 7] and torch.equal(back[7].masks(), found.masks())
    torch.testing.assert_close(back[7].scores, found.scores, atol=1e-6, rtol=0)
    assert torch.equal(back[7].boxes, found.boxes) and torch.equal(back[7].positions, found.positions)


@pytest.mark.parametrize("text", ["[{]", '{"a": 1}', "[1]", '[{"score": 1}]'])
def test_other_files_are_no_results(tmp_path, text):
    (tmp_path / "p.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"p.json'(:| hold| cannot be| is not JSON)"):
        load_results(tmp_path / "p.json")


def test_results_of_several_pictures_or_without_masks_are_refused():
    with pytest.raises(ValueError, match="2 results of 2 pictures"):
        Proposals.from_coco([{"image_id": 1, "score": 1}, {"image_id": 2, "score": 1}])
    with pytest.raises(ValueError, match="picture 1 has no 'segmentation'"):
        Proposals.from_coco([{"image_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}])


def test_prepare_changes_nothing_but_rounding():
    torch.manual_seed(0)
    model = deepmask_tiny()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2)
            nn.init.normal_(m.weight), nn.init.normal_(m.bias)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = prepare(model)
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for a, b in zip(model.eval()(x), fast(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert prepare(fast) is fast, "once is enough"
    assert prepare(fast, dtype=torch.bfloat16).mask.weight.dtype == torch.bfloat16
    assert prepare(fast.train()) is not fast, "no mark is left that could lie"


def test_two_branches_give_one_score_per_mask():
    torch.manual_seed(0)
    model = deepmask_tiny(head="branches").eval()
    found = propose(model, np.full((40, 60, 3), 90, np.uint8), scales=[1.0], top_k=99)
    level = pyramid(model, torch.zeros(3, 40, 60), [1.0])[0]
    assert level.dense.scores.shape == (1, 4, 5)  # (40 + 96) / 16, rounded up, - 6 + 1 rows: one per mask
    assert len(found) <= 20


def test_paste_rle_is_paste_and_encode():
    g = torch.Generator().manual_seed(0)
    logits, corner = torch.randn(6, 5, 5, generator=g), torch.rand(6, 2, generator=g) * 40 - 10
    boxes = torch.cat([corner, corner + torch.rand(6, 2, generator=g) * 30 + 0.1], 1)
    rle, tight = paste_rle(logits, boxes, 33, 21, 0.2)
    slow = paste_masks(logits, boxes, 33, 21, 0.2)
    assert rle == rle_encode(slow) and torch.equal(tight, mask_to_box(slow))


def test_the_border_is_grey_and_half_a_patch():
    canvas = on_canvas(torch.full((3, 4, 6), 9.0), 32)
    assert canvas.shape == (1, 3, 48, 48) and canvas[0, :, 16:20, 16:22].eq(9).all()
    assert canvas[0, 0, 0, 0].item() == pytest.approx((0.5 - 0.485) / 0.229)
    assert resized(torch.zeros(3, 10, 10), 0.01).shape == (3, 1, 1)


@pytest.mark.gpu
def test_cuda_gives_the_same_proposals(cuda, tiny, image):
    here, there = propose(tiny, image, top_k=20), propose(prepare(tiny).to(cuda), image, top_k=20)
    torch.testing.assert_close(here.scores, there.scores, atol=1e-3, rtol=0)
    assert here.positions[:5].tolist() == there.positions[:5].tolist()
