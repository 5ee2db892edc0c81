"""What every lesson shares: set-up, scale, source display, timing, and checks for exercises.

Scale: `FAIRSEG_SCALE=smoke` (CI: short training, claims asserted on the shipped checkpoint) or `lesson` (the default, what the
stored outputs show).
"""

import inspect
import os
import platform
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairseg_lite.errors import check_choice

SCALES = ("smoke", "lesson")


class Wrong(Exception):
    """An exercise's answer is wrong; the text says why."""


@dataclass(frozen=True)
class Here:
    """What `setup` found: the scale, and the device that lessons compute on."""

    scale: str
    device: torch.device

    @property
    def smoke(self) -> bool:
        return self.scale == "smoke"

    def pick(self, *, smoke: Any, lesson: Any) -> Any:
        """The value for this scale.

        Example:
            >>> Here("smoke", torch.device("cpu")).pick(smoke=3, lesson=1000)
            3
        """
        return smoke if self.smoke else lesson


def setup(seed: int = 0) -> Here:
    """Seed the generators, set the style of figures, and say what machine this is.

    Args:
        seed: for numpy's and torch's global generators, which a lesson's own cells may use.
    Returns:
        Here, with scale and device.
    Raises:
        InputError: the environment variable FAIRSEG_SCALE says neither "smoke" nor "lesson".
    """
    from fairseg_lite import plots

    check_choice("FAIRSEG_SCALE", scale := os.environ.get("FAIRSEG_SCALE", "lesson"), SCALES)
    np.random.seed(seed)  # noqa: NPY002  (cells of a lesson may use the global generator)
    torch.manual_seed(seed)
    plots.style()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads on the CPU"
    print(f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}, {where}, scale: {scale}")
    return Here(scale, device)


class _Source(str):
    """Source text that notebooks show in colour and terminals as it is."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from IPython.lib.display import Code

        return Code(str(self), language="python")._repr_html_()

    def __repr__(self) -> str:
        return str(self)


def show_source(thing: Any) -> _Source:
    """The library's real source of a function or class, to read and not to type.

    Example:
        >>> print(show_source(Here.pick).splitlines()[0])
            def pick(self, *, smoke: Any, lesson: Any) -> Any:
    """
    return _Source(inspect.getsource(thing))


def timed(**functions: Callable[[], Any]) -> dict[str, float]:
    """Run functions several times each, print their best times and how many times faster than the first they are.

    Args:
        functions: name=function without arguments; each runs at least three times or half a second; once if that takes 20 s.
    Returns:
        Seconds by name.
    """
    seconds: dict[str, float] = {}
    for name, function in functions.items():
        first = timeit.timeit(function, number=1)
        more = 0 if first > 20 else min(max(2, int(0.5 / first)), 99)
        seconds[name] = min([first, *timeit.repeat(function, number=1, repeat=more)])
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"{name:>16}: {value * 1000:10.3f} ms   {first / value:8.1f}x")
    return seconds


def equal(answer: Any, wanted: Any, when: str, *, tolerance: float = 1e-6) -> None:
    """Inside an exercise's check: the answer must equal what is wanted, up to a tolerance.

    Raises:
        Wrong: with the case, the answer and what was wanted.
        NotImplementedError: the answer is None or Ellipsis: nothing was written yet.
    """
    if answer is None or answer is Ellipsis:
        raise NotImplementedError
    a, w = np.asarray(answer), np.asarray(wanted)
    if a.shape != w.shape:
        raise Wrong(f"for {when} the shape is {a.shape}, wanted {w.shape}")
    same = np.array_equal(a, w) if w.dtype.kind in "bUO" else np.allclose(a.astype(float), w.astype(float), atol=tolerance)
    if not same:
        raise Wrong(f"for {when} the answer is {_short(answer)}, wanted {_short(wanted)}")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def check(test: Callable[[Any], None], answer: Any) -> str:
    """Try an answer to an exercise; never stops the notebook.

    Args:
        test: calls the answer and raises `Wrong` (or uses `equal`).
        answer: what the reader wrote, a function or a value.
    Returns:
        What is also printed: "not written yet", "wrong, because ..." or "correct".
    Example:
        >>> verdict = check(lambda f: equal(f(2), 4, "x = 2"), lambda x: x + 1)
        wrong, because for x = 2 the answer is 3, wanted 4
    """
    try:
        if answer is None or answer is Ellipsis:
            raise NotImplementedError
        test(answer)
        verdict = "correct"
    except NotImplementedError:
        verdict = "not written yet"
    except Wrong as reason:
        verdict = f"wrong, because {reason}"
    except Exception as error:  # the reader's own mistake: name it, and go on
        verdict = f"wrong, because it stops with {type(error).__name__}: {error}"
    print(verdict)
    return _Verdict(verdict)


class _Verdict(str):
    """Printed already; a notebook need not show it again."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        return
