"""Exercises and hearts of lessons: tried, hinted at, solved. What they are stands in `exercises/lessonNN.py`, one file each.

    HINTS          name -> three steps; the names in the order of the lesson
    HEARTS         name -> "module:function" of the library's own version, for the heart of a lesson
    name           the solution of any other exercise
    check_name(f)  tries an answer: `equal` or `Wrong` say what is wrong
    WRONG          name -> {why: a mistake}: a function, or (old, new), the solution with a piece of its text replaced

A mistake that is known is told by its reason: an answer that fails the same case in the same way has made it.
A key is "03.pixel_loss", or "03.2" for the second exercise of lesson 03.
"""

import contextlib
import dis
import functools
import importlib
import inspect
import textwrap
import traceback
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from fairseg_lite.errors import InputError

DONE: dict[str, bool] = {}  # lesson.name -> whether the last try was correct
_shown: dict[str, int] = {}  # key -> hints given
NOTHING = "not written yet"
_EMPTY = {"RESUME", "NOP", "POP_TOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}  # all that a stub does


class Wrong(Exception):
    """An answer is wrong; the text says why."""


class _Shown(str):
    """Printed already; a notebook need not show it again."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        return


def find(key: str) -> tuple[ModuleType, str]:
    """The file of a lesson, and the name of an exercise or a prediction in it.

    Raises: InputError, there is none.
    """
    number, _, name = key.partition(".")
    with contextlib.suppress(ModuleNotFoundError):
        lesson = importlib.import_module(f"fairseg_lite.course.exercises.lesson{number}")
        exercises = [n for n in lesson.HINTS if n not in lesson.HEARTS]
        name = dict(zip(map(str, range(1, 99)), exercises, strict=False)).get(name, name)
        if name in lesson.HINTS or name in lesson.PREDICTIONS:
            return lesson, name
        raise InputError(f"lesson {number} has no {name!r}; it has {', '.join([*lesson.HINTS, *lesson.PREDICTIONS])}")
    raise InputError(f"{key!r} is of no lesson; wanted a number of two digits and a name, such as '03.pixel_loss'")


def solved(lesson: ModuleType, name: str) -> Callable:
    """The solution: the library's own function, or the one of the lesson's file."""
    if name not in lesson.HEARTS:
        return getattr(lesson, name)
    module, _, path = lesson.HEARTS[name].partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def wrong_answers(lesson: ModuleType, name: str) -> Iterator[tuple[str, Callable]]:
    """Why, and a function that makes this mistake."""
    for why, wrong in lesson.WRONG.get(name, {}).items():
        if not callable(wrong):
            right, (old, new) = solved(lesson, name), wrong
            source = textwrap.dedent(inspect.getsource(right))
            if old not in source:
                raise InputError(f"{old!r} is not in the solution of {name}")
            scope = dict(vars(inspect.getmodule(right)))
            exec(compile(source.replace(old, new), f"<{name}>", "exec"), scope)
            wrong = scope[right.__name__]
        yield why, wrong


def equal(answer: Any, wanted: Any, when: str, *, tolerance: float = 1e-6) -> None:
    """Inside a check: the answer must equal what is wanted, up to a tolerance.

    Raises: Wrong, with the case, the answer and what was wanted.
    """
    a, w = (np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x) for x in (answer, wanted))
    if a.shape != w.shape:
        raise Wrong(f"for {when} the answer is {in_words(a.shape)}, wanted {in_words(w.shape)}")
    same = np.array_equal(a, w) if w.dtype.kind in "bUO" else np.allclose(a.astype(float), w.astype(float), atol=tolerance)
    if not same:
        raise Wrong(f"for {when} the answer is {_short(answer)}, wanted {_short(wanted)}")


def in_words(shape: tuple[int, ...]) -> str:
    """What an array of this shape is.

    Example:
        >>> in_words(()), in_words((4,)), in_words((2, 3)), in_words((5, 2, 3))
        ('one number', 'a row of 4 numbers', 'a table of 2 rows and 3 columns', '5 tables of 2 rows and 3 columns each')
    """
    if len(shape) < 2:
        return f"a row of {shape[0]} numbers" if shape else "one number"
    *more, rows, columns = shape
    many = " x ".join(map(str, more))
    return f"{many or 'a'} table{'s' if more else ''} of {rows} rows and {columns} columns{' each' if more else ''}"


def _short(value: Any) -> str:
    text = " ".join(str(value.detach().tolist() if isinstance(value, torch.Tensor) else value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def is_stub(answer: Any) -> bool:
    """Whether nothing was written yet: no function, or one that does nothing but return a constant.

    Example:
        >>> is_stub(lambda x: None), is_stub(lambda x: x + 1)
        (True, False)
    """
    if isinstance(answer, FunctionType):
        constants = set(answer.__code__.co_consts) - {answer.__doc__}
        return constants <= {None, ...} and all(i.opname in _EMPTY for i in dis.get_instructions(answer))
    return answer is None or answer is ...


def verdict_of(key: str, answer: Any) -> str:
    """ "correct", "not written yet", or "wrong, because ..."."""
    lesson, name = find(key)
    reason = NOTHING if is_stub(answer) else _failure(lesson, name, answer)
    DONE[f"{lesson.__name__[-2:]}.{name}"] = reason is None
    if reason in (None, NOTHING):
        return reason or "correct"
    known = (why for why, wrong in wrong_answers(lesson, name) if _failure(lesson, name, wrong) == reason)
    return f"wrong, because {next((f'{why}: {reason}' for why in known), reason)}"


def _failure(lesson: ModuleType, name: str, answer: Callable) -> str | None:
    """Why a check refuses an answer; None if it does not."""

    @functools.wraps(answer)
    def given(*args, **options):
        value = answer(*args, **options)
        if value is None or value is ...:
            raise Wrong(f"it returns {'...' if value else 'None'}: is a `return` missing?")
        return value

    try:
        getattr(lesson, f"check_{name}")(given)
    except NotImplementedError:
        return NOTHING
    except Wrong as reason:
        return str(reason)
    except Exception as error:  # the reader's own mistake: name it and its place, and go on
        return f"{_place(error, answer)}it stops with {type(error).__name__}: {error}"
    return None


def _place(error: Exception, answer: Callable) -> str:
    """The line of the reader's own code in which an error arose."""
    own = getattr(inspect.unwrap(answer), "__code__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if own and f.filename == own.co_filename]
    return f"in line {frames[-1].lineno}, `{frames[-1].line}`, " if frames else ""


def check(key: str, answer: Any) -> str:
    """Try an answer to an exercise; never stops the notebook.

    Args:
        key: of the exercise, such as "03.pixel_loss".
        answer: the function that the reader wrote.
    Returns: What is also printed: "not written yet", "wrong, because ..." or "correct".
    Example:
        >>> verdict = check("03.jitter_px", lambda P: P / 16)
        wrong, because for P = 224 the answer is 14.0, wanted 16.0
        (lesson.hint('03.jitter_px') helps)
    """
    verdict = verdict_of(key, answer)
    print(verdict if verdict == "correct" else f"{verdict}\n(lesson.hint({key!r}) helps)")
    return _Shown(verdict)


def hint(key: str) -> str:
    """The next of three hints; after the last one, the last again.

    Example:
        >>> text = hint("03.jitter_px")
        hint 1 of 3: The jitter is a share of the patch, whatever its side.
    """
    lesson, name = find(key)
    steps = lesson.HINTS[name]
    _shown[key] = n = min(_shown.get(key, 0) + 1, len(steps))
    print(f"hint {n} of {len(steps)}: {steps[n - 1]}")
    return _Shown(steps[n - 1])


def solution(key: str, yours: Callable | None = None) -> Callable:
    """Show a solution; or, given what the reader wrote, say what it is worth and go on with it if it is right.

    Args:
        key: of a heart or an exercise.
        yours: to be tried first.
    Returns: `yours` if it is correct, else the solution.
    Raises: AssertionError, the solution itself fails the check, which must not be.
    """
    lesson, name = find(key)
    right = solved(lesson, name)
    if yours is None:
        print(textwrap.dedent(inspect.getsource(right)))
        return right
    if (verdict := verdict_of(key, yours)) == "correct":
        print("correct: the lesson goes on with yours")
        return yours
    if reason := _failure(lesson, name, right):
        raise AssertionError(f"the library's own {name} fails its check: {reason}")
    print(
        verdict,
        f"(The lesson goes on with the library's. lesson.hint({key!r}) helps, lesson.solution({key!r}) shows it.)",
        sep="\n",
    )
    return right
