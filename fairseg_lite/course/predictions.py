"""Predict before you see: a question hides the result of the next cell until it is answered, and a tally ends the lesson.

Somebody is asked only where an answer can be given: by a front end that takes input and has widgets (JupyterLab, Colab). On
GitHub, under nbval and in a book of the course the same cell prints what may be answered, and nothing is hidden.
"""

import base64
import contextlib
import importlib.util
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fairseg_lite.course import checks

ANSWERED: dict[str, bool] = {}  # key -> whether the answer was right
_waiting: list[Callable] = []  # what will hide the next cell, if anything
CLICK = (  # a click writes its place, in pixels of the picture, into the text field below it
    "const t = this.closest('.prediction').querySelector('input'); t.value = Math.round(event.offsetX * this.naturalWidth / "
    "this.width) + ' ' + Math.round(event.offsetY * this.naturalHeight / this.height); "
    "for (const e of ['input', 'change']) t.dispatchEvent(new Event(e, {bubbles: true}))"
)


class Guess(NamedTuple):
    """The answer to a prediction: one of the choices, a number, or a place in a picture, and why it is so."""

    right: Any  # one of choices; a number; (x1, y1, x2, y2) of the picture, in px; or None, where any words are an answer
    choices: tuple[str, ...] = ()
    within: float = 0.0  # of the number
    why: str = ""
    ask: str = "Your prediction"  # or a shorter question

    def is_right(self, answer: str) -> bool:
        """Whether an answer, as it was clicked or typed, is right.

        Raises: ValueError, it is no number, or no place, where one is wanted; or it is empty.
        Example:
            >>> Guess(0.56, within=0.1).is_right("0,6"), Guess((10, 10, 20, 20)).is_right("12 30")
            (True, False)
        """
        if self.choices:
            return answer == self.right
        if self.right is None and answer.strip():
            return True
        numbers = [float(word) for word in answer.replace(",", ".").replace("%", "").split()]
        if isinstance(self.right, tuple):
            (x, y), (x1, y1, x2, y2) = numbers, self.right
            return x1 <= x <= x2 and y1 <= y <= y2
        (number,) = numbers
        return abs(number - self.right) <= self.within

    def prompt(self) -> str:
        """What can be answered, in one line."""
        other = {tuple: "click on the picture", type(None): "in your own words"}.get(type(self.right), "a number")
        return f"{self.ask}: {' | '.join(self.choices) or other}"


OPEN = Guess(None, why="Noted: now compare it with the result.", ask="Your prediction, before you run the next cell")


def live() -> bool:
    """Whether somebody can be asked here."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)  # a notebook that is only run forbids input
    return bool(getattr(kernel, "_allow_stdin", False)) and importlib.util.find_spec("ipywidgets") is not None


def predict(key: str = "", picture: np.ndarray | None = None) -> None:
    """Ask, and hide the next cell's result until there is an answer; where nobody can answer, only print what to think of.

    Args:
        key: of the prediction in the lesson's file, such as "03.unsure"; without one any words are an answer, not judged.
        picture: (H, W, 3) uint8, where the answer is a place in it.
    """
    lesson, name = checks.find(key) if key else (None, "")
    guess: Guess = lesson.PREDICTIONS[name] if lesson else OPEN
    if not live():
        print(guess.prompt())
        return
    import ipywidgets as w
    from IPython.display import display

    said, notice, hidden = w.HTML(), w.Label("hidden until you have predicted, above"), w.Output(layout={"display": "none"})

    def answer(text: str) -> None:
        with contextlib.suppress(ValueError):  # not a number yet
            ANSWERED[key] = guess.is_right(text)
            right = "the place marked by the next picture" if isinstance(guess.right, tuple) else guess.right
            verdict = "right." if ANSWERED[key] else f"no, {right}."
            said.value = f"{text}: {verdict} {guess.why}" if key else guess.why
            notice.layout.display, hidden.layout.display = "none", ""
            for part in (*buttons, field):
                part.disabled = True

    field = w.Text(placeholder=f"{'a number' if key else 'your words'}, then Enter")
    buttons = [w.Button(description=c) for c in guess.choices]
    for button in buttons:
        button.layout.width = "auto"
        button.on_click(lambda b: answer(b.description))
    if not buttons:
        field.continuous_update = picture is not None
        field.observe(lambda change: answer(change["new"]), "value")
    shown = [w.HTML(_clickable(picture))] if picture is not None else []
    box = w.VBox([w.HTML(guess.prompt()), *shown, w.HBox(buttons) if buttons else field, said])
    box.add_class("prediction")
    display(box)
    ANSWERED.pop(key, None)
    _hide_next(notice, hidden)


def _clickable(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return f'<img alt="click on it" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}" onclick="{CLICK}">'


def _hide_next(notice: Any, hidden: Any) -> None:
    """The next cell that runs shows its outputs in a hidden place, unless the answer was there before, or it fails."""
    from IPython import get_ipython
    from IPython.display import display

    events = get_ipython().events

    def before(info: Any) -> None:
        events.unregister("pre_run_cell", before)
        _waiting.clear()
        if hidden.layout.display:  # "none" until there is an answer
            display(notice, hidden)
            hidden.__enter__()
            events.register("post_run_cell", after)

    def after(result: Any) -> None:
        events.unregister("post_run_cell", after)
        hidden.__exit__(None, None, None)
        if result.error_in_exec:
            hidden.layout.display = ""

    for old in _waiting:  # the question was asked again
        events.unregister("pre_run_cell", old)
    _waiting[:] = [before]
    events.register("pre_run_cell", before)


def tally(number: str) -> None:
    """End a lesson: what was predicted, written and solved in it.

    Example:
        >>> tally("03")
        Lesson 03: 0 of ... predictions made, 0 of them right; 0 of 1 hearts written; 0 of 4 exercises solved.
    """
    lesson, _ = checks.find(f"{number}.1")
    made = [ANSWERED[k] for p in lesson.PREDICTIONS if (k := f"{number}.{p}") in ANSWERED]
    hearts = [checks.DONE.get(f"{number}.{name}", False) for name in lesson.HEARTS]
    others = [checks.DONE.get(f"{number}.{name}", False) for name in lesson.HINTS if name not in lesson.HEARTS]
    print(
        f"Lesson {number}: {len(made)} of {len(lesson.PREDICTIONS)} predictions made, {sum(made)} of them right; "
        f"{sum(hearts)} of {len(hearts)} hearts written; {sum(others)} of {len(others)} exercises solved."
    )
