"""Detection against a loop that does one proposal, one class, one box after the other; and each addition of test time."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import nn
from torchvision.ops import box_iou

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.results import read_results
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.geometry.boxes import xywh_to_xyxy
from fairseg_lite.geometry.masks import mask_iou, rle_encode
from fairseg_lite.geometry.pixels import normalise
from fairseg_lite.inference.detect import Detections, detect, masks_in_boxes, mirrored, shaken
from fairseg_lite.inference.propose import Proposals, propose
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.multipathnet import MultiPathOutput, multipathnet_tiny, probabilities
from fairseg_lite.models.network import Network, Record

SIZE = (96, 128)


def boxes_only(boxes):
    return SimpleNamespace(boxes=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))


def rectangles(boxes, size=SIZE):
    """Proposals whose masks fill their boxes (whole pixels)."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    n, rle = len(boxes), rle_encode(masks) if len(boxes) else []
    return Proposals(
        rle, torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.linspace(1, 0, n), torch.ones(n),
        torch.zeros(n, 2).long(), size,
    )  # fmt: skip


class Knowing(Network):
    """Knows the objects (box, class from 1): the better a box fits one, the surer; its answer is the box half way to it."""

    def __init__(self, objects, num_classes=3, width=SIZE[1], scale=1.0, sure=1.0):
        super().__init__()
        self.truth = torch.tensor([box for box, _ in objects], dtype=torch.float32) * scale
        self.classes = torch.tensor([c for _, c in objects])
        self.num_classes, self.width, self.sure = num_classes, width * scale, sure
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked, self.pooled, self.pooling = [], 1, "v2"

    def features(self, images):
        self.images = images
        return [images]

    def classify(self, levels, rois):
        self.asked.append(rois)
        boxes = torch.where(rois[:, :1] == 1, mirrored(rois[:, 1:], self.width), rois[:, 1:])
        iou, best = box_iou(boxes, self.truth).max(1)
        p = torch.full((len(rois), self.num_classes + 1), 1e-6)
        p[:, 0] = 1 - self.sure * iou
        p[torch.arange(len(rois)), self.classes[best]] = self.sure * iou
        half = (boxes + self.truth[best]) / 2
        half = torch.where(rois[:, :1] == 1, mirrored(half, self.width), half)
        return MultiPathOutput(p.clamp(min=1e-6).log()[None], half[:, None].repeat(1, self.num_classes + 1, 1))

    def boxes_of(self, rois, deltas):
        return deltas


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def opinionated(seed, num_classes=4):
    """A network with random weights whose opinions differ from box to box."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = multipathnet_tiny(num_classes=num_classes).eval()
        x = torch.rand(1, 3, *SIZE) * 4 - 2
        rois = torch.cat([torch.zeros(40, 1), random_boxes(40, seed)], 1)
        out = model(x, rois).logits
        for head, logits in zip(model.classes, out, strict=True):
            head.weight.data *= 2.5 / logits.std(0).mean()
            head.bias.data -= 2.5 / logits.std(0).mean() * logits.mean(0)
        model.boxes.weight.data *= 300
    return model.requires_grad_(False)


def random_boxes(n, seed):
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(n, 2, generator=g) * torch.tensor([SIZE[1], SIZE[0]])
    half = 4 + 24 * torch.rand(n, 2, generator=g)
    return torch.cat([centre - half, centre + half], 1).round()


def iou(a, b):
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return w * h / (sum(areas) - w * h)


def by_hand(model, image, boxes, *, least, nms, vote):
    """(box, label, score, proposal), best first: a loop for every step."""
    x, (h, w) = normalise(torch.from_numpy(image))[None], image.shape[:2]
    limit = (w, h, w, h)
    candidates = []
    for i, box in enumerate(boxes.tolist()):
        box = [min(max(v, 0), m) for v, m in zip(box, limit, strict=True)]
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        out = model(x, torch.tensor([[0, *box]]))
        p = sum(logits[0].softmax(0) for logits in out.logits) / len(out.logits)
        moved = model.boxes_of(torch.tensor([box]), out.deltas)[0].tolist()
        for k in range(1, model.num_classes + 1):
            b = [min(max(v, 0), m) for v, m in zip(moved[k], limit, strict=True)]
            if p[k] > least and b[2] > b[0] and b[3] > b[1]:
                candidates.append((b, k - 1, p[k].item(), i))
    candidates.sort(key=lambda c: -c[2])
    kept = []
    for c in candidates:
        if all(c[1] != other[1] or iou(c[0], other[0]) <= nms for other in kept):
            kept.append(c)
    if vote is None:
        return kept
    voted = []
    for box, label, score, i in kept:
        total, weight = [0.0] * 4, 0.0
        for other, its_label, its_score, _ in candidates:
            if its_label == label and iou(box, other) >= vote:
                total = [t + its_score * v for t, v in zip(total, other, strict=True)]
                weight += its_score
        voted.append(([t / weight for t in total], label, score, i))
    return voted


@pytest.mark.parametrize("vote", [None, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_detection_is_what_a_loop_finds(picture, seed, vote):
    model, boxes = opinionated(seed), random_boxes(50, seed + 10)
    with torch.inference_mode():
        expected = by_hand(model, picture, boxes, least=0.3, nms=0.3, vote=vote)
    found = detect(model, picture, boxes_only(boxes), score_threshold=0.3, nms=0.3, vote=vote, masks=None)
    assert 5 < len(found) == len(expected) <= 100
    assert len(set(found.labels.tolist())) > 1
    assert found.labels.tolist() == [e[1] for e in expected]
    torch.testing.assert_close(found.scores, torch.tensor([e[2] for e in expected]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.boxes, torch.tensor([e[0] for e in expected]), rtol=1e-3, atol=2e-2)
    if vote is not None:
        plain = detect(model, picture, boxes_only(boxes), score_threshold=0.3, nms=0.3, masks=None)
        assert torch.equal(plain.scores, found.scores)
        assert (plain.boxes - found.boxes).abs().max() > 0.5


# each addition


OBJECTS = [((10, 10, 50, 60), 1), ((60, 20, 120, 90), 3)]


def test_every_class_has_its_own_nms(picture):
    model = Knowing([((10, 10, 50, 60), 1)])
    same = detect(model, picture, boxes_only([[10, 10, 50, 60], [12, 12, 52, 60], [80, 10, 100, 40]]), masks=None)
    assert same.labels.tolist() == [0]
    two = Knowing([((10, 10, 50, 60), 1), ((14, 10, 54, 60), 2)])
    both = detect(two, picture, boxes_only([[10, 10, 50, 60], [14, 10, 54, 60]]), masks=None)
    assert sorted(both.labels.tolist()) == [0, 1], "they overlap by .8, but have different names"


def test_looking_again_corrects_the_box(picture):
    far, truth = [[18, 18, 58, 68]], torch.tensor([[10.0, 10, 50, 60]])
    model, quality, sure = Knowing(OBJECTS), [], []
    for n in (1, 2, 4):
        found = detect(model, picture, boxes_only(far), iterations=n, masks=None)
        assert len(found) == 1, "all looks at one object are one detection"
        quality.append(box_iou(found.boxes, truth).item())
        sure.append(found.scores.item())
    assert quality == sorted(quality) and quality[-1] > 0.95 and sure == sorted(sure)
    assert quality[0] == pytest.approx(box_iou(torch.tensor([[14.0, 14, 54, 64]]), truth).item())


def test_a_look_that_leaves_the_picture_keeps_its_proposal(picture):
    model = Knowing([((-100, 10, -10, 60), 1)], sure=0.5)
    model.classify = lambda levels, rois: MultiPathOutput(
        torch.tensor([[[0.0, 2, 0, 0]]]), torch.tensor([-90.0, 10, -10, 60]).repeat(1, 4, 1)
    )
    found = detect(model, picture, boxes_only([[5, 5, 30, 30]]), iterations=3, masks=None)
    assert len(found) == 0, "a box outside the picture is nothing"


def test_the_mirrored_picture_is_looked_at_with_mirrored_boxes(picture):
    model, boxes = Knowing(OBJECTS), boxes_only([[12, 10, 50, 60], [60, 25, 120, 90]])
    plain = detect(model, picture, boxes, masks=None)
    flipped = detect(model, picture, boxes, flip=True, masks=None)
    assert torch.equal(model.images[1], model.images[0].flip(-1))
    torch.testing.assert_close(flipped.boxes, plain.boxes)
    torch.testing.assert_close(flipped.scores, plain.scores)
    # a real network: detecting in the mirrored picture gives the mirrored detections, when both sides are looked at
    net, some = opinionated(3), random_boxes(20, 4).clamp(min=0)
    one = detect(net, picture, boxes_only(some), flip=True, masks=None)
    other = detect(net, picture[:, ::-1].copy(), boxes_only(mirrored(some, SIZE[1])), flip=True, masks=None)
    assert len(one) and one.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(mirrored(other.boxes, SIZE[1]), one.boxes, rtol=1e-3, atol=1e-2)
    alone = detect(net, picture, boxes_only(some), masks=None)
    assert len(alone) != len(one) or not torch.allclose(alone.scores, one.scores, atol=1e-3)


def test_shaken_copies_are_averaged(picture):
    model, boxes = Knowing(OBJECTS), boxes_only([[10, 10, 50, 60]])
    found = detect(model, picture, boxes, crops=3, masks=None)
    looks = torch.cat([r[:, 1:] for r in model.asked])
    assert len(looks) == 4 and torch.equal(looks[0], boxes.boxes[0])
    moved = (looks[1:] - looks[0]).abs()
    assert (moved.amax(1) > 0.1).all() and (moved <= torch.tensor([2.0, 2.5, 2.0, 2.5]) + 1e-4).all()
    assert found.scores.item() == pytest.approx(box_iou(looks, torch.tensor([[10.0, 10, 50, 60]])).mean().item(), abs=1e-4)
    again = detect(model, picture, boxes, crops=3, masks=None)
    assert torch.equal(again.scores, found.scores), "the same every time"


def test_an_ensemble_is_the_mean(picture):
    sure, unsure = Knowing(OBJECTS), Knowing(OBJECTS, sure=0.4)
    boxes = boxes_only([[10, 10, 50, 60]])
    assert detect([sure, unsure], picture, boxes, masks=None).scores.item() == pytest.approx(0.7, abs=1e-4)
    alone, twice = (detect(m, picture, boxes, masks=None) for m in (sure, [sure, sure]))
    assert torch.equal(alone.scores, twice.scores)
    assert torch.equal(alone.boxes, twice.boxes)


def test_the_network_sees_the_size_it_was_trained_with(picture):
    boxes = boxes_only([[10, 10, 50, 60]])
    for options, expected in (
        ({}, (96, 128)), ({"short_side": 192}, (192, 256)), ({"short_side": 192, "max_side": 200}, (150, 200)),
        ({"max_side": 64}, (48, 64)),
    ):  # fmt: skip
        model = Knowing(OBJECTS, scale=expected[0] / SIZE[0])
        found = detect(model, picture, boxes, masks=None, **options)
        assert model.images.shape[-2:] == expected
        torch.testing.assert_close(found.boxes, torch.tensor([[10.0, 10, 50, 60]]))
    model = Knowing(OBJECTS, scale=0.5)
    model.record = Record.of({"recipe": {"short_side": [40, 57], "max_side": 500}})
    assert (model.record.short_side, model.record.max_side) == (48, 500)
    detect(model, picture, boxes, masks=None)
    assert model.images.shape[-2:] == (48, 64)


def test_threshold_and_top(picture):
    model = Knowing(OBJECTS, sure=0.8)
    boxes = boxes_only([[10, 10, 50, 60], [60, 20, 120, 90]])
    assert len(detect(model, picture, boxes, score_threshold=0.81, masks=None)) == 0
    both = detect(model, picture, boxes, masks=None)
    assert len(both) == 2
    first = detect(model, picture, boxes, top=1, masks=None)
    assert torch.equal(first.boxes, both[:1].boxes)


# masks


def test_a_detection_keeps_the_mask_of_its_proposal(picture):
    # the first has no area in the picture, the second belongs to the worse detection
    proposals = rectangles([[5, 5, 5, 9], [60, 30, 120, 90], [10, 10, 50, 60]])
    found = detect(Knowing(OBJECTS), picture, proposals)
    assert found.labels.tolist() == [0, 2] and found.size == SIZE
    assert found.rle == [proposals.rle[2], proposals.rle[1]]
    again = detect(Knowing(OBJECTS), picture, proposals, iterations=3, flip=True, crops=1)
    assert again.rle == found.rle


@pytest.mark.parametrize("name", ["shapes", "shapes-sharp"])
def test_masks_in_boxes_are_those_of_the_objects(name):
    model, scene = load_model(name), ShapesDataset(3, seed=1)[2]
    boxes = torch.from_numpy(scene.boxes)
    rle = masks_in_boxes(model, scene.image, boxes)
    found = Detections(boxes, torch.zeros(len(boxes)).long(), torch.ones(len(boxes)), rle, scene.image.shape[:2]).masks()
    ious = mask_iou(found, torch.from_numpy(scene.masks)).diagonal()
    assert len(ious) > 1 and ious.mean() > 0.6
    moved = masks_in_boxes(model, scene.image, boxes + 40)
    assert moved != rle


def test_refined_masks_are_made_for_the_final_boxes():
    model, scene = load_model("shapes-sharp"), ShapesDataset(3, seed=1)[2]
    size = scene.image.shape[:2]
    objects = [(box.tolist(), 1) for box in scene.boxes]
    shifted = boxes_only(scene.boxes + 4)
    found = detect(Knowing(objects, width=size[1]), scene.image, shifted, proposer=model, masks="refined")
    assert found.rle == masks_in_boxes(model, scene.image, found.boxes)
    tight = detect(Knowing(objects, width=size[1]), scene.image, shifted, proposer=model, masks="refined", mask_boxes=True)
    assert tight.rle == found.rle and torch.equal(tight.labels, found.labels)
    for box, mask, before in zip(tight.boxes, found.masks(), found.boxes, strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else before
        assert box.tolist() == [float(v) for v in around]


def test_masks_come_batch_by_batch_and_not_at_all():
    model, image = load_model("shapes"), ShapesDataset(1)[0].image
    assert masks_in_boxes(model, image, torch.zeros(0, 4)) == []
    boxes = torch.tensor([[5.0, 5, 40, 40]]).repeat(70, 1)
    rle = masks_in_boxes(model, image, boxes)
    assert len(rle) == 70 and all(r == rle[0] for r in rle)
    beyond = masks_in_boxes(model, image, torch.tensor([[-20.0, -20, 30, 30]]))
    assert beyond[0]["size"] == list(image.shape[:2])


# results


def test_results_come_back_as_they_went(tmp_path):
    data = ShapesDataset(2, seed=1)
    ids = tuple(10 * i + 3 for i in reversed(range(len(data.categories))))  # gaps, and in no order
    truth = to_coco(data)
    truth["categories"] = [{"id": k, "name": n} for k, n in zip(ids, data.categories, strict=True)]
    g, rows, sent = torch.Generator().manual_seed(0), [], {}
    for scene in (data[0], data[1]):
        n = len(scene.masks)
        boxes = torch.from_numpy(scene.boxes) + torch.rand(n, 4, generator=g) / 3
        scores = torch.rand(n, generator=g).sort(descending=True).values
        sent[scene.image_id] = Detections(
            boxes, torch.from_numpy(scene.labels), scores, rle_encode(scene.masks), scene.image.shape[:2]
        )
        rows += sent[scene.image_id].to_coco(scene.image_id, ids)
    for a in truth["annotations"]:
        a["category_id"] = ids[data.category_ids.index(a["category_id"])]
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(rows), "utf-8")
    (tmp_path / "truth.json").write_text(json.dumps(truth), "utf-8")
    read = read_results(path)
    for image_id, there in sent.items():
        back = [r for r in read if r["image_id"] == image_id]
        assert torch.equal(xywh_to_xyxy(torch.tensor([r["bbox"] for r in back], dtype=torch.float64)).float(), there.boxes)
        assert [(r["score"], r["segmentation"]) for r in back] == list(zip(there.scores.tolist(), there.rle, strict=True))
        assert [r["category_id"] for r in back] == [ids[label] for label in there.labels]
    with redirect_stdout(io.StringIO()):
        plain = COCO(str(tmp_path / "truth.json")).loadRes(str(path))
    assert len(plain.getAnnIds()) == len(rows)
    assert {a["category_id"] for a in plain.loadAnns(plain.getAnnIds())} <= set(ids)


def test_some_of_the_detections():
    rle = rle_encode(np.eye(3, dtype=bool)[None].repeat(3, 0))
    found = Detections(torch.rand(3, 4), torch.tensor([2, 0, 1]), torch.tensor([0.9, 0.5, 0.1]), rle, (3, 3))
    assert found[:2].labels.tolist() == [2, 0] and len(found[:2].rle) == 2
    assert found[found.scores < 0.6].labels.tolist() == [0, 1]
    assert found[torch.tensor([2])].scores.tolist() == pytest.approx([0.1])
    assert found[:0].masks().shape == (0, 3, 3)


def test_detections_without_masks_or_ids():
    one = Detections(torch.zeros(1, 4), torch.tensor([0]), torch.ones(1), None, (3, 3))
    with pytest.raises(ValueError, match="boxes only"):
        one.masks()
    with pytest.raises(ValueError, match="labels reach from 0 to 0, but there are 0 category ids"):
        one.to_coco(1, ())
    assert len(Detections.none((2, 3), masks=True).masks()) == 0


# where proposals come from


def test_without_proposals_the_record_says_whose(picture):
    model = Knowing(OBJECTS)
    with pytest.raises(ValueError, match="trained on proposals of '', and no such network is here; give proposer="):
        detect(model, picture)
    model.record = replace(model.record, proposals="runs/boxes.json")
    with pytest.raises(ValueError, match="trained on proposals of 'runs/boxes.json'"):
        detect(model, picture, boxes_only([[1, 1, 9, 9]]), masks="refined")
    model.record = replace(model.record, proposals="shapes")
    scene = ShapesDataset(1, seed=1)[0]
    expected = detect(model, scene.image, propose(load_model("shapes"), scene.image, top_k=200))
    found = detect(model, scene.image)
    assert torch.equal(found.boxes, expected.boxes) and found.rle == expected.rle and len(found)
    fewer = detect(model, scene.image, proposer=load_model("shapes-sharp"), masks=None)
    assert fewer.boxes.shape != found.boxes.shape or not torch.equal(fewer.boxes, found.boxes), "an argument overrides"
    with pytest.raises(ValueError, match="holds a MultiPathNet, which proposes nothing"):
        detect(model, picture, proposer="shapes-multipath")


# bad input


@pytest.mark.parametrize("boxes", [[], [[5, 5, 5, 20]], [[200, 5, 220, 20]], [[30, 30, 10, 10]]], ids=str)
@pytest.mark.parametrize("masks", ["proposal", None])
def test_nothing_to_look_at_is_no_detection(picture, boxes, masks):
    found = detect(Knowing(OBJECTS), picture, rectangles(boxes) if masks else boxes_only(boxes), masks=masks)
    assert len(found) == 0 and found.boxes.shape == (0, 4)
    assert found.rle == ([] if masks else None)
    assert found.to_coco(1, (1, 2, 3)) == []


def test_one_category(picture):
    found = detect(Knowing([((10, 10, 50, 60), 1)], num_classes=1), picture, rectangles([[10, 10, 50, 60]]))
    assert found.to_coco(8, (17,))[0]["category_id"] == 17


def test_proposals_that_do_not_belong_here(picture):
    model = Knowing(OBJECTS)
    with pytest.raises(ValueError, match="of 50 x 60 px .*this one has 96 x 128; are they another picture's"):
        detect(model, picture, rectangles([[1, 1, 9, 9]], size=(50, 60)))
    with pytest.raises(ValueError, match="1 of 2 are no numbers"):
        detect(model, picture, boxes_only([[1, 1, 9, 9], [1, float("nan"), 9, 9]]), masks=None)
    with pytest.raises(ValueError, match=r"not \(N, 4\)"):
        detect(model, picture, SimpleNamespace(boxes=torch.zeros(4)), masks=None)
    with pytest.raises(ValueError, match="boxes only; take masks='refined'"):
        detect(model, picture, boxes_only([[1, 1, 9, 9]]))


@pytest.mark.parametrize("options, says", [
    ({"masks": "sharp"}, "choose one of 'proposal', 'refined', None"), ({"masks": "refined"}, "give proposer="),
    ({"mask_boxes": True}, "choose masks='refined'"),
    ({"nms": 1.5}, "nms is 1.5; it must be from 0 to 1"), ({"vote": -1}, "vote is -1"), ({"iterations": 0}, "iterations is 0"),
    ({"crops": -1}, "crops is -1"), ({"top": 0}, "top is 0"), ({"score_threshold": 2}, "score_threshold is 2"),
    ({"short_side": 5}, "short_side is 5"), ({"max_side": 5}, "max_side is 5"),
])  # fmt: skip
def test_options_outside_their_range(picture, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        detect(Knowing(OBJECTS), picture, boxes_only([[1, 1, 9, 9]]), **{"masks": None, **options})


def test_networks_and_pictures_that_do_not_do(picture):
    boxes = boxes_only([[10, 10, 50, 60]])
    with pytest.raises(ValueError, match=r"know \[1, 3\] categories"):
        detect([Knowing(OBJECTS), Knowing(OBJECTS[:1], num_classes=1)], picture, boxes, masks=None)
    with pytest.raises(ValueError, match="at least one"):
        detect([], picture, boxes, masks=None)
    for image in (picture.astype(np.float32), picture[..., 0], picture[:0]):
        with pytest.raises(ValueError, match="wanted an array of uint8"):
            detect(Knowing(OBJECTS), image, boxes, masks=None)
    with pytest.raises(ValueError, match="no numbers; its weights are damaged"):
        detect(Knowing(OBJECTS, sure=float("nan")), picture, boxes, masks=None)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, float("nan"), 9], [9, 9, 5, 5]])
def test_a_box_without_area_has_no_mask(box, picture):
    with pytest.raises(ValueError, match="without an area"):
        masks_in_boxes(load_model("shapes"), picture, torch.tensor([box], dtype=torch.float32))


def test_shaking_moves_nothing_at_seed_zero():
    boxes = random_boxes(9, 0)
    assert torch.equal(shaken(boxes, 0), boxes)
    assert not torch.equal(shaken(boxes, 1), shaken(boxes, 2))
    assert shaken(boxes[:0], 1).shape == (0, 4)


def test_cuda_gives_the_same_detections(cuda, picture):
    model, boxes = opinionated(0), boxes_only(random_boxes(30, 1))
    here = detect(model, picture, boxes, flip=True, crops=1, iterations=2, masks=None)
    there = detect(model.to(cuda), picture, boxes, flip=True, crops=1, iterations=2, masks=None)
    assert len(here) == len(there) and there.boxes.device.type == "cpu"
    torch.testing.assert_close(there.scores, here.scores, rtol=1e-2, atol=1e-2)


def test_probabilities_are_the_mean_of_the_heads(picture):
    model = opinionated(0)
    out = model(normalise(torch.from_numpy(picture))[None], torch.tensor([[0, 10.0, 10, 50, 60]]))
    torch.testing.assert_close(probabilities(out).sum(1), torch.ones(1))
