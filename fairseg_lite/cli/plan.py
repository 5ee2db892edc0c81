"""`--dry-run`: what a training would do and take."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

PROBE = 20  # steps


def planned(recipe, data, train: Callable) -> None:
    """Say it: `train` does some steps of a recipe, which are measured and forgotten."""
    import torch

    from fairseg_lite.bench import high_water
    from fairseg_lite.training.shards import rank_and_world

    fit, patches, objects = recipe.fit, hasattr(recipe, "positives"), int((~data.instances.crowd).sum())
    each = recipe.positives + recipe.negatives if patches else recipe.images
    model, history = train(replace(recipe, fit=replace(fit, steps=min(PROBE, fit.steps), log_every=1)))
    rate = median(history["rate"][len(history.rows) // 4 :]) / each  # the first steps are slow
    whole, learnt = (sum(p.numel() for p in model.parameters() if p.requires_grad >= only) for only in (False, True))
    disk = sum(t.nbytes for t in model.state_dict().values()) + 4 * learnt * (2 if fit.optimizer == "adamw" else 1)
    memory, device = f"{high_water() / 2**20:,.0f} MiB of a process", next(model.parameters()).device
    if device.type == "cuda":
        memory += f" and {torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB of its GPU"
    what = f"{each} patches" if patches else f"{each} pictures with {recipe.rois} RoIs each"
    share, one = (objects, "object") if patches else (len(data), "picture")
    rows = {
        "network": f"{recipe.model}: {whole:,} weights, {learnt:,} learn; on {device.type}, processes: {rank_and_world()[1]}",
        "data": f"{len(data):,} pictures, {objects:,} objects of {len(data.categories)} categories",
        "plan": f"{fit.steps:,} steps of {what}; {fit.optimizer}, lr {fit.lr:g}",
        "samples": f"{fit.steps * each:,}, {fit.steps * each / max(share, 1):,.1f} for each {one}",
        "memory": f"{memory}; state.safetensors takes {disk / 2**20:,.0f} MiB of disk",
        "time": f"{duration(fit.steps / rate)}, by {len(history.rows)} steps that were measured: {rate:.3g} a second",
    }
    print("\n".join(f"{name:11}{text}" for name, text in rows.items()))


def duration(seconds: float) -> str:
    """Seconds in the two largest units.

    Example:
        >>> duration(50), duration(4000), duration(400_000.0)
        ('50 s', '1 h 7 min', '4 days 15 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24:,} days {hours % 24} h"
