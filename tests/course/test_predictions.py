"""Predictions: what is asked, what is right, and that a result waits for an answer where somebody can give one."""

import nbformat
import pytest
from nbclient import NotebookClient

from fairseg_lite.course import checks, lesson, predictions
from fairseg_lite.course.predictions import Guess
from tests.course.test_checks import FILES

GUESSES = [f"{number}.{name}" for number, file in FILES.items() for name in file.PREDICTIONS]


@pytest.mark.parametrize("key", GUESSES)
def test_a_guess_can_be_right_and_wrong_and_says_why(key):
    file, name = checks.find(key)
    guess = file.PREDICTIONS[name]
    if guess.choices:
        assert [guess.is_right(c) for c in guess.choices].count(True) == 1 and len(guess.choices) > 1
    else:
        assert guess.is_right(str(guess.right)) and not guess.is_right(str(guess.right + guess.within + 0.01))
    assert guess.why.endswith((".", "?"))
    assert str(guess.right) not in guess.prompt() or guess.choices, "the answer is not in the question"


def test_three_to_six_a_lesson():
    assert all(3 <= len(file.PREDICTIONS) <= 6 for file in FILES.values())


def test_words_and_places_are_understood():
    assert Guess(95, within=10).is_right("90 %") and Guess(0.5).is_right("0,5")
    place = Guess((10, 20, 30, 40))
    assert place.is_right("10 40") and not place.is_right("9 30") and place.prompt().endswith("click on the picture")
    for guess, text in ((Guess(1.0), "many"), (Guess(1.0), ""), (Guess(1.0), "1 2"), (place, "12")):
        with pytest.raises(ValueError):
            guess.is_right(text)


def test_any_words_are_an_answer_to_an_open_question():
    assert predictions.OPEN.is_right("a ring, I think") and predictions.OPEN.is_right("7")
    for empty in ("", "  "):
        with pytest.raises(ValueError):
            predictions.OPEN.is_right(empty)


def test_nobody_is_asked_outside_a_notebook(capsys):
    assert not predictions.live()
    lesson.predict("03.unsure")
    lesson.predict()
    said = "Your prediction: a number\nYour prediction, before you run the next cell: in your own words\n"
    assert capsys.readouterr().out == said


def test_the_tally_counts(capsys, monkeypatch):
    monkeypatch.setattr(predictions, "ANSWERED", {"03.unsure": True, "03.trunk": False, "04.windows": True})
    monkeypatch.setattr(checks, "DONE", {"03.mask_loss": True, "03.pixel_loss": True, "03.jitter_px": False})
    lesson.tally("03")
    said = "Lesson 03: 2 of 4 predictions made, 1 of them right; 1 of 1 hearts written; 1 of 4 exercises solved.\n"
    assert capsys.readouterr().out == said


SETUP = """
from fairseg_lite.course import lesson, predictions
import ipywidgets as w, numpy as np
all_of = w.widgets.widget._instances if hasattr(w.widgets.widget, "_instances") else w.Widget.widgets  # ipywidgets 8, or 7
made = lambda kind: [x for x in all_of.values() if isinstance(x, kind)]
"""
CLICK = "[b for b in made(w.Button) if b.description == {!r}][-1].click()"
TYPE = "made(w.Text)[-1].value = {!r}"
SAID = "print([h.value for h in made(w.HTML)], predictions.ANSWERED)"
NOTICE = "print([x.layout.display for x in made(w.Label)])"
HIDDEN = "print([(o.layout.display, o.outputs) for o in made(w.Output)])"


def run(*sources: str, asked: bool = True) -> list[str]:
    """What each cell shows after all have run; with somebody to ask, or as notebooks are only run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in (SETUP, *sources)])
    client = NotebookClient(notebook, timeout=60, allow_errors=True)
    with client.setup_kernel():
        client.kc.allow_stdin = asked
        for i, cell in enumerate(notebook.cells):
            client.execute_cell(cell, i)
    return ["".join(str(o.get("text") or o.get("data", o.get("ename"))) for o in c.outputs) for c in notebook.cells[1:]]


def test_a_result_waits_for_the_answer_and_the_next_one_does_not():
    shown = run(
        "lesson.predict('03.flipped')",
        "print('the result')\n1 + 1",
        "print('later')",
        HIDDEN,
        NOTICE,
        CLICK.format("both change"),
        HIDDEN,
        NOTICE,
    )
    assert "the result" not in shown[1] and "hidden until you have predicted" in shown[1] and shown[2] == "later\n"
    assert shown[3].startswith("[('none', (") and "the result" in shown[3] and "'text/plain': '2'" in shown[3]
    assert shown[6].startswith("[('', (") and "the result" in shown[6] and "later" not in shown[6]
    assert shown[4] == "[None]\n" and shown[7] == "['none']\n", "what says that it is hidden goes, too"


def test_an_answer_given_before_hides_nothing_and_is_told_at_once():
    shown = run("lesson.predict('03.flipped')\n" + CLICK.format("both change"), "print('the result')", SAID)
    assert shown[1] == "the result\n"
    assert "both change: no, neither changes. The gate" in shown[2] and "{'03.flipped': False}" in shown[2]


def test_a_number_is_read_and_words_are_waited_for():
    type_in = "lesson.predict('03.unsure')\n" + TYPE.format("no idea")
    shown = run(f"{type_in}\n{SAID}", HIDDEN, TYPE.format("0.7"), SAID)
    assert "{}" in shown[0] and "hidden until" in shown[1]
    assert "0.7: right. log(1 + 1)" in shown[3] and "{'03.unsure': True}" in shown[3]


def test_an_open_question_hides_the_result_until_something_is_typed_and_is_not_judged():
    shown = run(
        "lesson.predict()",
        "print('the result')",
        "print('later')",
        TYPE.format("  "),
        HIDDEN,
        TYPE.format("a ring"),
        HIDDEN + "\n" + SAID,
    )
    assert shown[2] == "later\n" and "the result" not in shown[1]
    assert shown[4].startswith("[('none', (") and "the result" in shown[4]
    assert shown[6].startswith("[('', (") and "Noted: now compare it with the result." in shown[6] and "a ring:" not in shown[6]


def test_an_answer_to_one_open_question_does_not_show_the_result_of_another():
    first = "made(w.Text)[0].value = 'a ring'"
    shown = run("lesson.predict()", "print('one')", "lesson.predict()\n" + first, "print('two')", HIDDEN)
    assert [display for display, _ in eval(shown[4], {})] == ["", "none"]


def test_an_error_in_a_hidden_cell_is_not_swallowed():
    shown = run("lesson.predict('03.flipped')", "1 / 0", HIDDEN)
    assert shown[2].startswith("[('', (") and "ZeroDivisionError" in shown[2]


def test_a_question_that_is_asked_again_hides_once():
    shown = run("lesson.predict('03.flipped')", "lesson.predict('03.flipped')\nlesson.predict('03.trunk')", "1", "2", HIDDEN)
    assert shown[1].count("hidden until") == 1 and shown[2].count("hidden until") == 1 and shown[3] == "{'text/plain': '2'}"


def test_where_nobody_can_answer_nothing_is_hidden_and_no_widget_is_made():
    shown = run("lesson.predict('03.flipped')", "print('the result')", HIDDEN, asked=False)
    assert shown[0] == "Your prediction: both change | only the loss | neither changes\n"
    assert shown[1] == "the result\n" and shown[2] == "[]\n"


def test_a_picture_can_be_clicked():
    shown = run(
        "predictions.checks.find('03.unsure')[0].PREDICTIONS['here'] = predictions.Guess((0, 0, 4, 4), why='There.')\n"
        "lesson.predict('03.here', np.zeros((8, 8, 3), np.uint8))\n" + TYPE.format("9 9"),
        SAID,
    )
    assert 'alt="click on it" src="data:image/png;base64,' in shown[1] and "9 9: no, the place marked" in shown[1]
