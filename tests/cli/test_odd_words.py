"""Words that are empty, as a variable that was never set makes them, mean nothing: not the current folder."""

import pytest


@pytest.mark.parametrize(
    "words, said",
    [
        (("propose", "", "-o", "out"), "the picture is empty"),
        (("detect", " ", "-o", "out"), "the picture is empty"),
        (("propose", "PHOTO", "-o", ""), "the folder to write to is empty"),
        (("demo", "-o", ""), "the folder to write to is empty"),
        (("evaluate", "shapes", ""), "data is empty"),
        (("train", "deepmask", "", "--out", "out"), "data is empty"),
        (("train", "deepmask", "shapes:1", "--out", ""), "the folder to write to is empty"),
    ],
)
def test_an_empty_word_is_refused(refused, photo, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert f"{said}; name it, . for the current folder" in refused(*(photo if w == "PHOTO" else w for w in words))
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "out"] == before
