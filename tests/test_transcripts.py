"""The transcripts of the console command in README and docs are what it prints."""

from __future__ import annotations

import glob
import re
import shlex
import shutil

import pytest

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact.arithmetic import integers

from .conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRANSCRIPTS = [
    found
    for page in PAGES
    for found in re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
]
TIME = re.compile(r" in .* s \(.* (images/s|an image)\)")
VERSION = re.compile(r"(?<=iqa/)[^\s,]+")
FIGURE = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="module", autouse=True)
def looks_once():
    """The networks, always those of the shipped weights, look at each image once."""
    passes, known = MAAGIQA.backbone_passes, {}

    def remembered(model, encoder, branch, steps=integers):
        assert model.has_shipped_weights and steps is integers
        key = encoder.numpy().tobytes(), branch.numpy().tobytes()
        if key not in known:
            known[key] = passes(model, encoder, branch)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MAAGIQA, "backbone_passes", remembered)
        yield


def output_of(words, status, capsys):
    """What a line of a transcript prints, and the exit status of the command before or now."""
    if words[0] == "cat":
        return open(words[1]).read(), 0
    if words == ["echo", "$?"]:
        return f"{status}\n", 0
    assert words[0] == "pyiqa-ma-agiqa"
    expanded = [path for word in words[1:] for path in sorted(glob.glob(word)) or [word]]
    status = main(expanded)
    printed = capsys.readouterr()
    if words[1] == "score":  # the error stream has the progress bar
        return printed.out, status
    return printed.out + printed.err, status


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_transcript(transcript, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    status = 0
    commands = re.split(r"^\$ ", transcript, flags=re.M)[1:]
    assert commands
    for command in commands:
        line, _, expected = command.partition("\n")
        printed, status = output_of(shlex.split(line), status, capsys)
        printed, expected = (
            VERSION.sub("…", TIME.sub(" in …", text)).strip() for text in (printed, expected)
        )
        assert FIGURE.sub("#", printed) == FIGURE.sub("#", expected)
        found, told = (list(map(float, FIGURE.findall(text))) for text in (printed, expected))
        assert found == pytest.approx(told, abs=2e-3)


def test_there_are_transcripts_of_three_commands():
    text = "".join(TRANSCRIPTS)
    assert all(f"$ pyiqa-ma-agiqa {name} " in text for name in ("score", "explain", "compare"))


def test_the_explanation_as_data_is_what_its_page_says(monkeypatch):
    """The figures in the comments of the Python example."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/explain.md").read_text(), re.M | re.S)
    names: dict = {}
    exec(code, names)
    checked = 0
    for expression, told in re.findall(r"^(explanation\..*?)  # (.*)$", code, re.M):
        figures = list(map(float, FIGURE.findall(told)))
        value = eval(expression, names)
        found = (
            [*value.values()] if isinstance(value, dict) else [value] if isinstance(value, float) else value
        )
        if figures:
            assert list(found)[: len(figures)] == pytest.approx(figures, abs=2e-3 * max(1, max(figures)))
            checked += 1
    assert checked == 4
