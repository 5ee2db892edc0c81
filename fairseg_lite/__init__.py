"""fairseg-lite: DeepMask, SharpMask and MultiPathNet in PyTorch, small enough to read.

picture --trunk--> features --DeepMask--> coarse masks + scores --SharpMask--> sharp masks --MultiPathNet--> named objects

    import fairseg_lite
    found = fairseg_lite.propose(fairseg_lite.load_model(), image)       image: (H, W, 3) uint8
    named = fairseg_lite.detect(fairseg_lite.load_model("photos-multipath"), image)

These three are imported when they are first asked for: `import fairseg_lite` alone takes milliseconds.
"""

TYPE_CHECKING = False  # True to whoever checks types; `typing` itself would be half of the import
if TYPE_CHECKING:
    from fairseg_lite.inference.detect import detect
    from fairseg_lite.inference.propose import propose
    from fairseg_lite.models.checkpoints import load_model

__version__ = "0.1.0"
__all__ = ["detect", "load_model", "propose"]
HOMES = {"detect": "inference.detect", "load_model": "models.checkpoints", "propose": "inference.propose"}


def __getattr__(name: str) -> object:
    if name in HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
