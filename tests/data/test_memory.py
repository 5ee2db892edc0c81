"""Many objects in a large picture: what they take beyond the picture's own memory, in a process of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

LIMIT = 300  # MiB
WORK = """
import resource, sys
import torch
from fairseg_lite.data.coco import CocoDataset, check, to_coco
from fairseg_lite.data.patches import PatchSampler, PatchSpec
from fairseg_lite.data.pictures import load_image
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.rois import RoiSampler

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

load_image(sys.argv[1] + "/images/a.png")
before = peak()
assert check(sys.argv[1], progress=False).instances == 400
data = CocoDataset(sys.argv[1])
PatchSampler(data, PatchSpec(), positives=8, negatives=8).batch(0)
RoiSampler(data, {1: Boxes(torch.from_numpy(data.instances.box), torch.ones(400))}).batch(0)
assert len(to_coco(data)["annotations"]) == 400
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_four_hundred_objects_in_four_megapixels(tmp_path):
    h, w = 1800, 2400
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([40 * np.cos(angles), 40 * np.sin(angles)], 1)
    centres = [(60 + 115 * x, 50 + 89 * y) for y in range(20) for x in range(20)]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "segmentation": [(ring + c).round(1).ravel().tolist()]}
        for i, c in enumerate(centres)
    ]
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((h, w, 3), np.uint8)).save(tmp_path / "images/a.png")
    images, categories = [{"id": 1, "file_name": "a.png", "height": h, "width": w}], [{"id": 1, "name": "disc"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content), "utf-8")
    done = subprocess.run([sys.executable, "-c", WORK, str(tmp_path)], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < LIMIT
