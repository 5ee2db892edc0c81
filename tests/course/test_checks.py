"""Exercises: every check tells stub, solution and mistakes apart, and says what is wrong in words a learner can use."""

import importlib

import pytest
import torch

from fairseg_lite.course import checks, lesson
from fairseg_lite.errors import InputError

FILES = {f"{n:02d}": importlib.import_module(f"fairseg_lite.course.exercises.lesson{n:02d}") for n in range(14)}
KEYS = [f"{number}.{name}" for number, file in FILES.items() for name in file.HINTS]
MISTAKES = [(key, i) for key in KEYS for i in range(len(checks.find(key)[0].WRONG[checks.find(key)[1]]))]


def test_every_lesson_but_the_first_has_a_heart():
    assert [number for number, file in FILES.items() if not file.HEARTS] == ["00"]
    assert sum(len(file.HEARTS) for file in FILES.values()) == 14


@pytest.mark.parametrize("key", KEYS)
def test_the_solution_is_accepted_and_a_stub_is_not(key):
    file, name = checks.find(key)
    assert checks.verdict_of(key, checks.solved(file, name)) == "correct"
    assert checks.DONE[key]
    for stub in (lambda *a, **o: None, lambda *a, **o: ..., None, ...):
        assert checks.verdict_of(key, stub) == "not written yet"
    assert not checks.DONE[key]


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_without_return_is_asked_for_it(key):
    def forgetful(*values, **options):
        _ = len(values)

    assert "is a `return` missing?" in checks.verdict_of(key, forgetful)


@pytest.mark.parametrize("key, i", MISTAKES)
def test_a_mistake_is_refused_with_its_reason(key, i):
    why, wrong = list(checks.wrong_answers(*checks.find(key)))[i]
    verdict = checks.verdict_of(key, wrong)
    assert verdict.startswith(f"wrong, because {why}: "), verdict


@pytest.mark.parametrize("key", KEYS)
def test_there_are_three_hints_and_two_mistakes_at_least(key):
    file, name = checks.find(key)
    assert len(file.HINTS[name]) == 3 and all(isinstance(step, str) and len(step) > 5 for step in file.HINTS[name])
    assert len(file.WRONG[name]) >= 2


def test_hints_come_one_by_one_and_the_last_stays(capsys):
    steps = FILES["03"].HINTS["gated_mean"]
    checks._shown.clear()
    assert [lesson.hint("03.2") for _ in range(4)] == [*steps, steps[-1]]
    assert capsys.readouterr().out.startswith("hint 1 of 3: ")


def test_an_error_names_the_learners_own_line(capsys):
    def pixel_loss(m, f):
        size = m * f
        return size.mean()

    line = pixel_loss.__code__.co_firstlineno + 2
    said = lesson.check("03.pixel_loss", pixel_loss)
    reason = "it stops with AttributeError: 'float' object has no attribute 'mean'"
    assert said == f"wrong, because in line {line}, `return size.mean()`, {reason}"
    assert "lesson.hint('03.pixel_loss')" in capsys.readouterr().out


def test_shapes_are_told_in_words():
    said = checks.verdict_of("03.mask_loss", lambda logits, masks, labels: logits.flatten(1)[:, :3])
    assert said.endswith("the answer is a table of 1 rows and 3 columns, wanted one number")


def test_equal_looks_at_values_and_shapes():
    checks.equal(torch.tensor([1.0], requires_grad=True), [1.0], "a tensor with a gradient")
    for answer, wanted in ((2, 1), ([1], 1), ("a", "b"), (float("nan"), 1.0), ([True], [False])):
        with pytest.raises(checks.Wrong, match="for this case"):
            checks.equal(answer, wanted, "this case")


def test_a_heart_goes_on_with_the_learners_own_only_if_it_is_right(capsys):
    right = checks.solved(*checks.find("03.mask_loss"))

    def mine(*inputs):
        return right(*inputs)

    assert lesson.solution("03.mask_loss", mine) is mine
    assert "goes on with yours" in capsys.readouterr().out
    assert lesson.solution("03.mask_loss", lambda *inputs: right(*inputs) + 1) is right
    assert capsys.readouterr().out.startswith("wrong, because ")
    assert lesson.solution("03.mask_loss", lambda logits, masks, labels: None) is right
    said = capsys.readouterr().out
    assert said.startswith("not written yet") and "softplus" not in said, "the answer is not under the stub"
    assert lesson.solution("03.mask_loss") is right
    assert "softplus" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["99.x", "3.mask_loss", "03.nothing", "mask_loss", "03.5"])
def test_what_is_no_exercise_is_refused(key):
    with pytest.raises(InputError, match="03.mask_loss|lesson 03 has no|of no lesson"):
        checks.find(key)


def test_a_mistake_that_is_no_edit_of_the_solution_is_refused(monkeypatch):
    monkeypatch.setitem(FILES["03"].WRONG, "jitter_px", {"nothing": ("not there", "x")})
    with pytest.raises(InputError, match="not in the solution of jitter_px"):
        list(checks.wrong_answers(FILES["03"], "jitter_px"))
