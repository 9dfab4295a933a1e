"""The frame of the command: how every kind of ending is told, and printing that never ends a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pyiqa_ma_agiqa.command import adapt, compare, explain, score, train, weights
from pyiqa_ma_agiqa.command.main import DEBUG, main
from pyiqa_ma_agiqa.command.summary import pace
from pyiqa_ma_agiqa.errors import InputError, PluginError, WeightsError
from pyiqa_ma_agiqa.reason import reason
from pyiqa_ma_agiqa.version import __version__

from ..command_runs import make_images
from ..conftest import ROOT

WORDS = {
    score: ["score", "images", "--out", "x.csv"],
    explain: ["explain", "a.png", "--out", "out"],
    compare: ["compare", "a.csv", "b.csv"],
    weights: ["weights", "list"],
    adapt: ["adapt", "--images", "images", "--table", "ratings.csv", "--out", "mine.safetensors"],
    train: ["train", "--config", "recipe.yaml"],
}
ENTROPY = ["--metric", "entropy", "--device", "cpu"]


def ending(module, monkeypatch, error):
    def run(options):
        raise error

    monkeypatch.setattr(module, "run", run)
    return main(WORDS[module])


@pytest.mark.parametrize("module", WORDS, ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("a\x1b.png: broken\nimage"), 2, r"error: a\x1b.png: broken\nimage"),
        (WeightsError("w.pth: damaged"), 2, "error: w.pth: damaged"),
        (PluginError("device"), 2, "error: device"),
        (KeyboardInterrupt(), 130, None),
        (RuntimeError("CUDA went\naway"), 2, "error: unforeseen RuntimeError (CUDA went); "),
        (KeyError(), 2, "error: unforeseen KeyError (KeyError); "),
        (OSError(28, "No space left"), 2, "error: unforeseen OSError ([Errno 28] No space left); "),
        (MemoryError(), 2, "error: unforeseen MemoryError (MemoryError); "),
        (BrokenPipeError(), 2, "error: unforeseen BrokenPipeError (BrokenPipeError); "),
    ],
)
def test_how_a_command_ends(module, error, status, said, monkeypatch, capsys):
    monkeypatch.delenv(DEBUG, raising=False)
    assert ending(module, monkeypatch, error) == status
    lines = capsys.readouterr().err.splitlines()
    if said is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(said)
        assert ("unforeseen" in line) == (f"{DEBUG}=1 in the environment shows where" in line)


def test_the_traceback_comes_on_demand(monkeypatch, capsys):
    monkeypatch.setenv(DEBUG, "1")
    assert ending(score, monkeypatch, LookupError("lost")) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "in run" in said and said.splitlines()[-1].startswith("error: unforeseen")
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert f"{DEBUG}=1 in the environment" in capsys.readouterr().out


def test_the_version_is_told_at_once():
    """No command is imported for it."""
    code = (
        "import sys; from pyiqa_ma_agiqa.command.main import COMMANDS, main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit as stopped:\n    print(stopped.code)\n"
        "print([name for name in ('torch', 'pyiqa', 'numpy') if name in sys.modules])\n"
        "print([name for name in COMMANDS if 'pyiqa_ma_agiqa.command.' + name in sys.modules])\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert said.stdout.splitlines() == [f"pyiqa-ma-agiqa {__version__}", "0", "[]", "[]"], said.stderr


def test_a_reason_is_one_line():
    assert reason(ValueError("\n one\ntwo")) == "one"
    assert reason(ValueError()) == "ValueError"
    assert reason(ValueError("\x1b[2J")) == r"\x1b[2J"


@pytest.mark.parametrize(
    ("images", "seconds", "said"),
    [
        (500, 100, "500 images in 1 min 40 s (5.0 images/s)"),
        (2, 2, "2 images in 2.0 s (1.0 images/s)"),
        (4, 6, "4 images in 6.0 s (1.5 s an image)"),
        (1, 6, "1 image in 6.0 s (6.0 s an image)"),
        (10, 1000, "10 images in 16 min 40 s (1 min 40 s an image)"),
        (0, 0.3, "0 images in 0.3 s"),
    ],
)
def test_the_pace_reads_well(images, seconds, said):
    assert pace(images, seconds) == said


# Printing


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 2)
    Image.new("RGB", (32, 32), "teal").save(tmp_path / "画像.png")
    return tmp_path


class Redirected:
    """Standard output as a stream of the test's, as it is for a process."""

    def __init__(self, descriptor, encoding="utf-8"):
        self.stream = os.fdopen(descriptor, "w", encoding=encoding)

    def __enter__(self):
        self.before, sys.stdout = sys.stdout, self.stream
        return self.stream

    def __exit__(self, *_):
        sys.stdout = self.before
        self.stream.close()  # nothing is left in it that could fail now


def pipe_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    return write


def test_score_ends_when_nobody_reads_what_it_prints(files, capsys):
    with Redirected(pipe_nobody_reads()):
        assert main(["score", "images", *ENTROPY, "--out", "x.csv"]) == 0
    assert len(Path("x.csv").read_text().splitlines()) == 3
    assert not list(Path().glob("x.csv.*"))
    assert "error" not in capsys.readouterr().err


def test_explain_writes_all_files_when_nobody_reads_what_it_prints(files, capsys):
    images = sorted(str(path) for path in files.glob("images/*.png"))
    with Redirected(pipe_nobody_reads()):
        assert main(["explain", *images, "--out", "out", "--device", "cpu"]) == 0
    assert len(list(Path("out").iterdir())) == 4
    assert "error" not in capsys.readouterr().err


def test_compare_writes_its_file_when_nobody_reads_what_it_prints(files):
    for name, score_ in (("a", 1.0), ("b", 2.0)):
        rows = "".join(f"{number},{score_ + number},\n" for number in range(3))
        Path(f"{name}.csv").write_text(f"path,score,error\n{rows}")
    with Redirected(pipe_nobody_reads()):
        assert main(["compare", "a.csv", "b.csv", "--json", "x.json"]) == 0
    assert Path("x.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_full_disk_under_what_is_printed_is_told(files, capsys):
    with Redirected(os.open("/dev/full", os.O_WRONLY)):
        assert main(["score", "images", *ENTROPY, "--out", "x.csv"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "standard output cannot be written (No space left on device)" in line
    assert Path("x.csv").exists() and not list(Path().glob("x.csv.*"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_the_terminal_has_not(files, encoding):
    """They are printed as escapes."""
    with open("said", "wb") as said, Redirected(os.dup(said.fileno()), encoding):
        assert main(["score", "画像.png", *ENTROPY, "--out", "x.csv"]) == 0
        assert main(["explain", "画像.png", "--out", "out", "--device", "cpu"]) == 0
    assert Path("said").read_bytes().count(rb"\u753b\u50cf.png") == 3
    assert "画像.png" in Path("x.csv").read_text(encoding="utf-8")


def test_without_standard_streams(files, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["score", "images", *ENTROPY, "--out", "x.csv"]) == 0
    assert main(["score", "images", *ENTROPY, "--out", "x.csv"]) == 2
    assert sys.stdout is None and sys.stderr is None


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    assert main(["weights", "list"]) == 0
    assert (sys.stdout, sys.stderr) == before


def test_a_process_whose_output_is_cut_off(tmp_path):
    """As with `| head -1`, in a terminal of ASCII: no error at the end of the interpreter either."""
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    environ.pop("PYTHONUNBUFFERED", None)  # what is printed is written at the very end
    process = subprocess.Popen(
        [sys.executable, "-m", "pyiqa_ma_agiqa.command", "--help"],
        stdout=pipe_nobody_reads(),
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
    )
    assert process.communicate()[1] == "" and process.returncode == 0
