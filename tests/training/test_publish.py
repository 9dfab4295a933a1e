"""A training run becomes the shipped model: weights into the package, facts into the manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from pyiqa_ma_agiqa.compact.shipped import NAME
from pyiqa_ma_agiqa.training import publish
from pyiqa_ma_agiqa.training.commit import running_commit
from pyiqa_ma_agiqa.weights.manifest import PACKAGE_WEIGHTS_DIR, load_manifest

from ..conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECIPE = {
    "data": {"split_column": "official"},
    "degraded": 320,
    "blend": 0.35,
    "quality": {"epochs": 0},
    "experts": {"seed": 20},
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with the manifest, the example images and no weights."""
    folder = tmp_path / "checkout"
    (folder / "examples").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "landscape.png", folder / "examples")
    shutil.copy(ROOT / "weights_manifest.json", folder)
    monkeypatch.setattr(publish, "CHECKOUT", folder)
    monkeypatch.setattr(publish, "PACKAGE_WEIGHTS_DIR", folder / "weights")
    return folder


@pytest.fixture
def run_of(tmp_path):
    def make(name: str, parts=("val", "test"), commit: str | None = COMMIT):
        run = tmp_path / name
        run.mkdir()
        shutil.copy(PACKAGE_WEIGHTS_DIR / NAME, run / "weights.safetensors")
        figures = {part: {"srcc": len(name) / 10} for part in parts}
        result = {
            "recipe": RECIPE,
            "trained_at_commit": commit,
            "command": "pyiqa-ma-agiqa train --test",
            "seconds": 1800,
            "agreement": figures,
        }
        (run / "metrics.json").write_text(json.dumps(result))
        (run / "log.txt").write_text("began\nended\n")
        return run

    return make


def test_a_run_is_published(checkout, run_of):
    before = load_manifest()["files"]
    seconds = [f"{split}={run_of(split)}" for split in ("prompt_disjoint", "m3")]
    words = [str(run_of("first")), "--second", seconds[0], "--second", seconds[1]]
    assert publish.main(words) == 0
    manifest = json.loads((checkout / "weights_manifest.json").read_text())
    shipped, *others = manifest["files"]
    assert others == before[1:]
    assert set(shipped) == set(before[0])
    data = (checkout / "weights" / NAME).read_bytes()
    assert (shipped["bytes"], shipped["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert set(shipped["recipe"]) == set(before[0]["recipe"])
    assert (shipped["recipe"]["trained_at_commit"], shipped["recipe"]["config"]["blend"]) == (COMMIT, 0.35)
    told = [shipped["recipe"][name] for name in ("command", "hours", "log")]
    assert told == ["pyiqa-ma-agiqa train --test", 0.5, ["began", "ended"]]
    assert set(shipped["metrics"]) == set(before[0]["metrics"])
    assert [figures["test"]["srcc"] for figures in shipped["metrics"].values()] == [0.5, 1.5, 0.2]
    example = "examples/landscape.png"
    assert shipped["example_scores"] == pytest.approx(
        {example: before[0]["example_scores"][example]}, abs=1e-3
    )


def test_a_run_that_does_not_say_all_is_refused(checkout, run_of, tmp_path, capsys):
    """Nothing is written then."""
    whole = run_of("whole")
    before = (checkout / "weights_manifest.json").read_bytes()
    for words, message in (
        ([str(tmp_path / "none")], "metrics.json: not readable"),
        (
            [str(run_of("untested", parts=("val",)))],
            "no test figures; repeat `pyiqa-ma-agiqa train` with --test",
        ),
        ([str(run_of("installed", commit=None))], "does not say at which commit"),
        ([str(whole), "--second", f"other={run_of('half', parts=('val',))}"], "no test figures"),
    ):
        assert publish.main(words) == 2
        assert message in capsys.readouterr().err
    assert (checkout / "weights_manifest.json").read_bytes() == before
    assert not (checkout / "weights").exists()


def test_what_is_in_the_package_stays_unless_all_of_the_new_is_known(checkout, run_of, capsys):
    (checkout / "weights").mkdir()
    (checkout / "weights" / NAME).write_bytes(b"as it was")
    other, damaged = run_of("other"), run_of("damaged")
    result = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps(result | {"recipe": {"data": {}}}))
    (damaged / "weights.safetensors").write_bytes(b"damaged")
    for run, message in ((other, "not of a run that trains ma_agiqa"), (damaged, "weights.safetensors")):
        assert publish.main([str(run)]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        publish.main([str(run_of("whole")), "--second", "folder"])
    assert "--second folder: give SPLIT=FOLDER" in capsys.readouterr().err
    assert (checkout / "weights" / NAME).read_bytes() == b"as it was"


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    from pyiqa_ma_agiqa.training import commit

    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "package").mkdir()
    (tmp_path / "setup.cfg").write_text("[metadata]\n")
    monkeypatch.setattr(commit, "PACKAGE", tmp_path / "package")
    assert running_commit() is None
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-q", "-m", "first"],
        ["tag", "-a", "-m", "x", "v1"],
    ):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert running_commit() == head.stdout.strip()
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = changed\n")
    assert running_commit() == head.stdout.strip() + "-dirty"
    # An installed package within a checkout of something else.
    monkeypatch.setattr(commit, "PACKAGE", tmp_path / "package" / "site" / "ours")
    (tmp_path / "package" / "site" / "ours").mkdir(parents=True)
    assert running_commit() is None
