"""Parity with the official code: every stage, the loss, gradients and an SGD step of `oracle/sharpmask`, in float64."""

import numpy as np
import pytest
import torch

from fairseg_lite.models.losses import mask_loss
from fairseg_lite.models.refinement import NaiveRefinementModule, refactor

from .sharpmask_maps import official_sharpmask, our_name
from .test_deepmask_oracle import close


@pytest.fixture(scope="module")
def patch(shared):
    with np.load(shared / "oracle" / "sharpmask" / "patch_f64.npz") as z:
        return {k: z[k] for k in z.files}


@pytest.fixture
def model(shared):
    return official_sharpmask(shared / "oracle", padding="official")


def labels_and_loss(model, patch):
    labels = torch.from_numpy(patch["labels"]) > 0
    masks = model(torch.from_numpy(patch["input"])).masks
    return masks, mask_loss(masks, labels, torch.ones(2))


def test_every_stage(model, patch):
    """The official F carries its context; ours is cropped first, as its SpatialZeroPadding does."""
    x = torch.from_numpy(patch["input"])
    taps = [t[:, :, b : t.shape[2] - b, b : t.shape[3] - b] for t, b in zip(model.trunk.taps(x), (8, 4, 2, 1), strict=True)]
    for k, ours in enumerate(reversed(model.trunk.taps(x)), 1):
        close(ours if k > 1 else taps[-1], patch[f"inps{k}_F"])
    dense = model.heads(taps)
    m = model.first(dense.embedding[:, :, 0, 0]).view(2, 16, 4, 4)
    close(m, patch["refs0_output"])
    close(m, patch["netv0_output"])
    for k, module in enumerate(model.refinements, 1):
        close(module.top_down(m), patch[f"netv{k}_output"])
        close(dense.laterals[k - 1] + module.top_down(m), patch[f"neth{k}_output"])  # official CAddTable adds in place
        m = module.merge(dense.laterals[k - 1], m)
        close(model.last(m) if k == 4 else m, patch[f"refs{k}_output"])


def test_output_loss_and_gradients(model, patch):
    masks, loss = labels_and_loss(model, patch)
    close(masks, patch["output"])
    close(loss, patch["loss"])
    batch = 2  # the official gradient is multiplied by it
    loss.backward()
    named = dict(model.named_parameters())
    compared = 0
    for key, official in patch.items():
        if key.startswith("grad."):
            name = our_name(key.removeprefix("grad.").replace("gradWeight", "weight").replace("gradBias", "bias"))
            close(named[name].grad * batch, official)
            compared += 1
    assert compared == sum(k.startswith("grad.") for k in patch) > 35


def test_gradient_of_the_512_numbers(model, patch):
    vectors = torch.from_numpy(patch["input"])
    seen = []
    model.first.register_forward_pre_hook(lambda _, x: seen.append(x[0].requires_grad_()))
    loss = mask_loss(model(vectors).masks, torch.from_numpy(patch["labels"]) > 0, torch.ones(2))
    (gradient,) = torch.autograd.grad(loss, seen)
    close(gradient * 2, patch["gradInput_trunkOutput"])


def test_one_step_of_gradient_descent(model, patch):
    """Plain SGD with the official rate, whose gradient is the batch size times ours; trunk and heads stay."""
    _, loss = labels_and_loss(model, patch)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=1e-3 * 2).step()
    close(labels_and_loss(model, patch)[0], patch["output_after_sgd_step_lr1e-3"])


def test_autograd_keeps_what_the_official_border_discards(shared, patch):
    """The same output, but other gradients: what a mirrored pixel sends back counts for the pixel it mirrors."""
    gradients = []
    for padding in ("official", "symmetric"):
        model = official_sharpmask(shared / "oracle", padding=padding)
        masks, loss = labels_and_loss(model, patch)
        close(masks, patch["output"])
        loss.backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    official, whole = gradients
    close(official["last.weight"], whole["last.weight"].numpy())  # nothing lies between it and the loss
    g, w = official["first.weight"], whole["first.weight"]
    assert (g - w).abs().max() > 0.01 * w.abs().max()


def test_official_weights_in_the_naive_form(model, patch):
    """The naive module, given the official weights by concatenation, computes what the official sum computes."""
    for k, module in enumerate(model.refinements, 1):
        n, out = module.top_down[0].in_channels, module.top_down[2].out_channels
        naive = NaiveRefinementModule(features=module.lateral[0].in_channels, channels=n, out=out, upsample="nearest").double()
        naive.reduce.load_state_dict(module.lateral[:4].state_dict())
        naive.top_down.load_state_dict(module.top_down[:2].state_dict())
        with torch.no_grad():
            naive.join.weight.copy_(torch.cat([module.lateral[4].weight, module.top_down[2].weight], 1))
            naive.join.bias.copy_(module.lateral[4].bias + module.top_down[2].bias)
            features = torch.from_numpy(patch[f"inps{k}_F"])
            border = 2 ** (k - 1) if k > 1 else 0
            features = features[:, :, border : features.shape[2] - border, border : features.shape[3] - border]
            mask = torch.from_numpy(patch[f"refs{k - 1}_output"])
            ours = naive(features, mask)
        close(model.last(ours) if k == 4 else ours, patch[f"refs{k}_output"])
        close(refactor(naive)(features, mask), ours.numpy(), 1e-12)
