"""`--set NAME=VALUE`: typed by the field, and what it says of a name or value that is none."""

from dataclasses import dataclass, field

import pytest

from fairseg_lite.cli.options import arguments, changed, keywords
from fairseg_lite.errors import InputError


@dataclass(frozen=True)
class Fit:
    steps: int = 10
    lr: float = 0.1
    clip: float | None = None
    scale: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    name: str = "a"
    flip: bool = True
    sides: tuple[int, int] | None = (1, 2)
    marks: tuple[float, ...] = ()
    options: dict = field(default_factory=dict)
    fit: Fit = field(default_factory=Fit)


OPTIONS = {"k": int, "heads": bool | int, "word": str}


def one(word):
    """What a single --set makes of `Run`."""
    return changed(Run(), [tuple(word.split("=", 1))], OPTIONS)


@pytest.mark.parametrize("word, made", [
    ("name=b", Run(name="b")), ("flip=False", Run(flip=False)), ("fit.steps=3", Run(fit=Fit(steps=3))),
    ("fit.lr=1e-3", Run(fit=Fit(lr=1e-3))), ("fit.clip=5", Run(fit=Fit(clip=5.0))), ("fit.clip=none", Run()),
    ("sides=256, 416", Run(sides=(256, 416))), ("sides=none", Run(sides=None)), ("marks=1,.5,3", Run(marks=(1.0, 0.5, 3.0))),
    ("marks=", Run()), ("options.k=16", Run(options={"k": 16})), ("options.heads=false", Run(options={"heads": False})),
    ("options.heads=4", Run(options={"heads": 4})), ("fit.scale.trunk.=0.5", Run(fit=Fit(scale={"trunk.": 0.5}))),
])  # fmt: skip
def test_values_have_the_type_of_their_field(word, made):
    assert one(word) == made
    assert repr(one(word)) == repr(made), "5 is 5.0 where a number may have a fraction"


@pytest.mark.parametrize("word, said", [
    ("speed=1", "Run has no 'speed'; choose of name, flip, sides, marks, options, fit"),
    ("fit.speed=1", "Fit has no 'speed'; choose of steps, lr, clip, scale"),
    ("options.q=1", "options has no 'q'; choose of k, heads, word"),
    ("fit.steps=1e3", "--set fit.steps=1e3: fit.steps is a whole number, such as 10"),
    ("fit.lr=fast", "fit.lr is a number, such as 0.1"),
    ("fit.lr=inf", "fit.lr is a number"),
    ("fit.clip=x", "fit.clip is a number or none"),
    ("flip=1", "flip is true or false"),
    ("sides=3", "sides is whole numbers with commas between or none, such as 1,2"),
    ("sides=1,2,3", "sides is whole numbers"),
    ("marks=a", "marks is numbers with commas between"),
    ("options.heads=x", "options.heads is true or false or a whole number"),
    ("options=3", "options is a table, whose entries are set one by one"),
    ("fit=3", "Fit has no ''"),
    ("name.first=b", "name is a word and has no field 'first'"),
])  # fmt: skip
def test_what_is_refused_names_the_field_and_its_type(word, said):
    with pytest.raises(InputError) as error:
        one(word)
    assert said in str(error.value)


def test_later_words_win_and_the_rest_stays():
    run = changed(Run(), [("fit.lr", "1"), ("fit.steps", "2"), ("fit.lr", "3")])
    assert run == Run(fit=Fit(lr=3.0, steps=2))


def test_arguments_of_a_function():
    def draw(picture, *, top: int = 3, nms: float | None = None, timer: object = None):
        return picture

    assert keywords(draw, besides=("timer",)) == {"top": int, "nms": float | None}
    assert arguments([("top", "5"), ("nms", ".5")], draw) == {"top": 5, "nms": 0.5}
    for word in ("timer", "picture"):
        with pytest.raises(InputError, match=f"draw has no '{word}'; choose of top, nms"):
            arguments([(word, "1")], draw, besides=("timer",))
