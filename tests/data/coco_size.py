"""A made-up annotation file as large as COCO's.

python -m tests.data.coco_size FOLDER      118,000 pictures that are not there, 860,000 instances, 450 MB; then checks it and says
                                           how many seconds and bytes that took
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

W, H, CORNERS = 640, 480, 22
CHECK = "import sys; from fairseg_lite.cli import main; sys.exit(main(['data', 'check', sys.argv[1]]))"


def write(path: Path, pictures: int, instances: int) -> None:
    """Stars of 22 corners of 80 categories; every 90th instance is a crowd, as runs."""
    g = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    images = [
        {"license": 1, "file_name": f"{i:012d}.jpg", "height": H, "width": W, "date_captured": "2013-11-14 11:18:45", "id": i,
         "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg"}
        for i in range(1, pictures + 1)
    ]  # fmt: skip
    categories = [{"supercategory": f"group {k % 10}", "id": k + 1, "name": f"kind {k}"} for k in range(80)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for start in range(0, instances, 10_000):
            n = min(10_000, instances - start)
            radius = g.uniform(6, H / 4, n)
            x, y = (
                (g.uniform(radius, side - radius)[:, None] + radius[:, None] * wave * g.uniform(0.7, 1, (n, CORNERS))).round(2)
                for side, wave in ((W, np.cos(angles)), (H, np.sin(angles)))
            )
            area = np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)).round(2) / 2
            boxes = np.stack([x.min(1), y.min(1), np.ptp(x, 1), np.ptp(y, 1)], 1).round(2)
            image, category = g.integers(pictures, size=n) + 1, g.integers(80, size=n) + 1
            rows = []
            for i in range(n):
                row = {"segmentation": [np.stack([x[i], y[i]], 1).ravel().tolist()], "area": float(area[i]), "iscrowd": 0}
                row |= {"image_id": int(image[i]), "bbox": boxes[i].tolist(), "category_id": int(category[i])}
                if (start + i) % 90 == 0:
                    runs = {"size": [H, W], "counts": [H * 10, H * 30, H * (W - 40)]}
                    row |= {"segmentation": runs, "area": H * 30, "iscrowd": 1, "bbox": [10, 0, 30, H]}
                rows.append(json.dumps({**row, "id": start + i + 1}))
            file.write(", " * bool(start) + ", ".join(rows))
        file.write("]}")


def checked(path: Path) -> tuple[str, float, float]:
    """What `data check` says, in a process of its own; its seconds, and GB at its peak."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHECK, str(path)], capture_output=True, text=True, encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return done.stdout + done.stderr, time.perf_counter() - start, peak


if __name__ == "__main__":
    target = Path(sys.argv[1]) / "instances.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, 118_000, 860_000)
    told, seconds, peak = checked(target)
    print(f"{told}\n{seconds:.1f} s, {peak:.2f} GB")
