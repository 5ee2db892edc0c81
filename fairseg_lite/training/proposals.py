"""Proposals to train MultiPathNet on: made once, kept in a file, gone on with after an interruption."""

from pathlib import Path

import torch
from tqdm.auto import tqdm

from fairseg_lite.data.results import Boxes, load_boxes, save_boxes
from fairseg_lite.data.scenes import SceneDataset, image_ids
from fairseg_lite.errors import InputError
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask

SAVE_EVERY = 100  # pictures


def make_proposals(
    model: DeepMask | SharpMask,
    dataset: SceneDataset,
    path: str | Path,
    *,
    pictures: int | None = None,
    top_k: int = 200,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> dict[int, Boxes]:
    """Boxes of a network's best masks, for the first pictures of a data set.

    Args:
        model: finds the objects.
        dataset: scenes.
        path: JSON file they are kept in; pictures that are in it already are not looked at again, so a call that was
            interrupted goes on. Another network or top_k wants another file.
        pictures: look at so many of the first; None: at all.
        top_k: proposals of each at most.
        dtype: to compute in; default the model's.
        progress: show a bar when it takes more than 2 s.
    Returns:
        Boxes by picture id, those of this data set's first pictures only.
    Raises:
        InputError: no proposal in any picture, or a file that is damaged or cannot be written.
    Lesson: 08.
    """
    path, ids = Path(path), image_ids(dataset)[:pictures]
    found = load_boxes(path) if path.exists() else {}
    missing = [i for i, key in enumerate(ids) if key not in found]
    fast = prepare(model, dtype=dtype) if missing else model
    since = 0
    try:
        for i in tqdm(missing, desc="proposals", unit="picture", disable=not progress, delay=2):
            masks = propose(fast, dataset[i].image, top_k=top_k)
            if len(masks):
                found[ids[i]] = Boxes(masks.boxes, masks.scores)
                since += 1
            if since >= SAVE_EVERY:
                save_boxes(path, found)
                since = 0
    finally:
        if since:
            save_boxes(path, found)
    if not found:
        raise InputError(f"{type(model).__name__} found nothing in {len(ids)} pictures; train it longer, or take another")
    found = load_boxes(path)  # as rounded in the file: the same at every call
    return {key: found[key] for key in ids if key in found}
