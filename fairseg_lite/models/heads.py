"""How much mask and score of a DeepMask share: where along  trunk -> 1x1 convolution -> 512 numbers  they part.

    "branches"   after the trunk; the score pools 2x2 first         paper 1
    "A"          after the trunk; a 1x1 convolution for each        paper 2
    "B"          after the 1x1 convolution; 512 numbers for each    paper 2
    "C"          after the 512 numbers; also called "shared"        paper 2, and the official code

What is known of the second paper's heads: they do without the pooling (and so without interleaving), A, B and C share more and
more, and C reads mask and score from one vector of 512. That A and B part one layer and two layers after one another, as here,
is our reading of "more and more", not the paper's figure. It makes the study clean: with equal weights in both branches
A, B and C are one function (tested), so that nothing but the sharing differs. Nor do we know whether the paper's A had a 1x1
convolution for each: its trunk study counts the 128 channels behind that layer to the trunk.

`DeepMask` builds the layers; here are the names, what they fit, and the layers after the score's vector.
Source: DeepMask section 3.1, SharpMask section 4; official `DeepMask.lua` (head C). Lesson: 07.
"""

from torch import nn

from fairseg_lite.errors import InputError

HEADS = ("branches", "A", "B", "C")


def named_head(head: str, mask_head: str, grid: int) -> str:
    """The name in HEADS of a head ("shared" is C), if it fits.

    Args:
        head: "branches", "A", "B", "C" or "shared".
        mask_head: "low_rank", or "full", which needs "branches".
        grid: cells of a patch, a side; the pooling of "branches" needs an even number.
    Raises:
        InputError: an unknown name, or options that do not fit each other.
    Example:
        >>> named_head("shared", "low_rank", 6)
        'C'
    """
    name = "C" if head == "shared" else head
    if name not in HEADS or mask_head not in ("low_rank", "full") or (mask_head == "full" and name != "branches"):
        raise InputError(
            f"head is {head!r} with mask_head {mask_head!r}; choose a head of {', '.join(HEADS)} with mask_head low_rank, "
            "or branches with full"
        )
    if name == "branches" and grid % 2:
        raise InputError(f"head is 'branches', which pools 2x2, and a patch has {grid} cells a side; take an even number")
    return name


def score_layers(head: str, embedding: int, hidden: int, dropout: float) -> nn.Sequential:
    """A vector (..., embedding) -> one logit (..., 1); paper 1 begins with a ReLU, the 512 numbers of paper 2 have none.

    Example:
        >>> len(score_layers("C", 512, 1024, 0.5)), len(score_layers("branches", 512, 1024, 0.5))
        (5, 6)
    """
    layers = [nn.Dropout(dropout), nn.Linear(embedding, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)]
    return nn.Sequential(nn.ReLU(), *layers) if head == "branches" else nn.Sequential(*layers)
