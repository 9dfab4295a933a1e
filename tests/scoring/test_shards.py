"""A shard is the unit: whole or not there, done once, done again when it changed."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from itertools import count
from pathlib import Path
from threading import Barrier, Lock

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.errors import WeightsError
from pyiqa_ma_agiqa.scoring.columns import INTERVAL, output_columns
from pyiqa_ma_agiqa.scoring.origins import origin_here
from pyiqa_ma_agiqa.scoring.scorer import Scorer
from pyiqa_ma_agiqa.scoring.shards import plan, run, there
from pyiqa_ma_agiqa.scoring.shards.work import SharedScorer

from ..command_runs import start
from .made_shards import ENTROPY, about, image, make_tar, make_tars, rows, score


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "in", 3)
    return tmp_path


MA_AGIQA = ["--metric", "ma_agiqa", "--device", "cpu"]


def times(folder):
    return {file.name: file.stat().st_mtime_ns for file in Path(folder).iterdir()}


def test_each_shard_becomes_one_parquet(here, capsys):
    score("in/x-*.tar", out="plain.parquet")
    score("in/x-{000..002}.tar", out="out")
    assert rows("out") == rows("plain.parquet") and len(rows("out")) == 12
    files = sorted(Path("out").iterdir())
    assert [file.name[:6] for file in files] == ["x-000-", "x-001-", "x-002-"]
    facts = os.stat("in/x-001.tar")
    told = about(files[1])
    assert (told["shard"], told["images"], told["failed"]) == ("in/x-001.tar", 4, 0)
    assert (told["size"], told["changes"]) == (facts.st_size, str(facts.st_mtime_ns))
    assert {name: told[name] for name in ("metric", "version", "weights")} == origin_here("entropy")._asdict()
    said = capsys.readouterr().out
    assert "shards   3 scored, 0 there already, 0 not read\nimages   12\nmean     " in said


def test_what_is_there_is_done(here, capsys, monkeypatch):
    score("in/x-00[01].tar", out="out")
    before = times("out")
    score("in/*.tar", "in/x-000.tar", out="out")
    assert "1 scored, 3 there already" in capsys.readouterr().out
    assert times("out").items() >= before.items() and len(times("out")) == 3
    monkeypatch.setattr(SharedScorer, "__init__", None)  # all is done: no metric is made
    score("in/*.tar", out="out")


def test_many_finished_shards_are_looked_at_together(here, capsys, monkeypatch):
    make_tars(here / "many", there.LOOKS, 1)
    score("many/*.tar", out="out")
    together, reads = Barrier(there.LOOKS, timeout=60), count()
    by_itself = there.read_made

    def read_together(place):
        if next(reads):  # the first one is looked at before all, for its settings
            together.wait()
        return by_itself(place)

    monkeypatch.setattr(there, "read_made", read_together)
    score("many/*.tar", out="out")
    assert f"0 scored, {there.LOOKS} there already" in capsys.readouterr().out


def test_blocks_of_a_list_are_looked_at_one_by_one(here, capsys, monkeypatch):
    """Since the names of each fill memory."""
    monkeypatch.setattr(plan, "BLOCK", 2)
    Path("list.csv").write_text("path\n" + "".join(f"{number}.png\n" for number in range(10)))
    score("list.csv", out="out", status=1)
    taken = []
    by_itself = plan.block
    monkeypatch.setattr(plan, "block", lambda *given: taken.append(given) or by_itself(*given))
    read = there.read_made
    seen = []
    monkeypatch.setattr(there, "read_made", lambda place: seen.append(len(taken)) or read(place))
    score("list.csv", out="out", status=1)
    assert "0 scored, 5 there already" in capsys.readouterr().out
    assert seen == [0, 1, 2, 3, 4, 5], "one before all, for its settings, then each"


def test_a_shard_that_changed_is_done_again_and_said(here, capsys):
    score("in/*.tar", out="out")
    before = times("out")
    make_tar(here / "in" / "x-001.tar", {"new.png": image(77)})
    score("in/*.tar", out="out")
    told = capsys.readouterr()
    assert "in/x-001.tar: was changed; scored again" in told.err and "1 scored, 2 there already" in told.out
    assert [row["path"] for row in rows("out") if "x-001" in row["path"]][-1] == "in/x-001.tar!/new.png"
    assert len(rows("out")) == 9
    assert sum(time == before[name] for name, time in times("out").items()) == 2


def test_a_shard_that_changes_while_it_is_read_is_not_written(here, capsys, monkeypatch):
    make_tars(here / "in", 2, 40)
    by_itself = Scorer.score

    def replace_meanwhile(self, batch):
        make_tar(here / "in" / "x-001.tar", {"other.png": image(5)})
        return by_itself(self, batch)

    monkeypatch.setattr(Scorer, "score", replace_meanwhile)
    score("in/x-001.tar", out="out", status=1)
    assert "1 not read\n  in/x-001.tar: is being written; wait until" in capsys.readouterr().out
    assert not list(Path("out").iterdir())


def test_other_settings_are_refused(here, capsys):
    score("in/*.tar", out="out")
    before = times("out")
    assert main(["score", "in/*.tar", "--metric", "brisque", "--device", "cpu", "--out", "out"]) == 2
    assert "metric was entropy, is brisque" in capsys.readouterr().err and times("out") == before
    score("in/*.tar", "--max-bytes", "10", "--restart", out="out", status=1)
    assert {row["error"] for row in rows("out")} == {
        f"has {len(image(number))} bytes, more than --max-bytes 10; raise that if you trust it"
        for number in range(12)
    }


def test_intervals_are_written_and_belong_to_the_settings(here, short_towers, capsys):
    make_tar(here / "in" / "x-000.tar", {"a.png": b"broken", "b.png": image(3)})
    words = ["score", "in/x-000.tar", *MA_AGIQA, "--interval", "--out"]
    assert main([*words, "out"]) == main([*words, "plain.parquet"]) == 1
    assert rows("out") == rows("plain.parquet")
    broken, scored = rows("out")
    assert list(scored) == list(output_columns(shares=False, interval=True))
    assert [broken[name] for name in INTERVAL] == [None] * 3
    assert scored["low"] < scored["score"] < scored["high"] and 0 <= scored["familiarity"] <= 1
    assert main(["score", "in/x-000.tar", *MA_AGIQA, "--out", "out"]) == 2
    assert "--interval was True, is False" in capsys.readouterr().err


def test_shards_with_errors_are_done_again_when_asked_for(here, capsys):
    make_tar(here / "in" / "x-003.tar", {"a.png": b"broken", "b.png": image(3)})
    score("in/*.tar", out="out", status=1)
    score("in/*.tar", "--retry-errors", out="out", status=1)
    told = capsys.readouterr().out
    assert "1 scored, 3 there already" in told and "failed   1\n  in/x-003.tar!/a.png: not an image" in told


def test_no_parquet_of_other_settings_comes_among_those_that_are_there(here, capsys):
    """Or neither the one command nor the other could go on."""
    make_tar(here / "in" / "x-003.tar", {"a.png": b"broken", "b.png": image(3)})
    score("in/*.tar", out="out", status=1)
    before = times("out")
    make_tar(here / "in" / "x-001.tar", {"new.png": image(30)})
    make_tars(here / "other", 1, start=50)
    for words in (["in/*.tar", *ENTROPY], ["other/*.tar", *ENTROPY]):
        assert main(["score", *words, "--retry-errors", "--max-pixels", "99", "--out", "out"]) == 2
        assert "--max-pixels was 40000000, is 99" in capsys.readouterr().err
        assert times("out") == before
    assert main(["score", "in/x-001.tar", *ENTROPY, "--max-pixels", "99", "--out", "out"]) == 2
    score("in/*.tar", out="out", status=1)
    assert "1 scored, 3 there already" in capsys.readouterr().out


def test_an_input_that_is_refused_costs_no_other_one(here, capsys):
    assert main(["score", "in/*.tar", "none/*.tar", *ENTROPY, "--out", "out"]) == 2
    assert "none/*.tar: matches nothing" in capsys.readouterr().err and not Path("out").exists()
    Path("list.csv").write_text("image\nin/x-000.tar\n")
    assert main(["score", "list.csv", "in/*.tar", "in/x-009.tar", *ENTROPY, "--out", "out"]) == 2
    told = capsys.readouterr()
    assert "list.csv: no column path" in told.err and "in/x-009.tar: no such file" in told.err
    assert len(rows("out")) == 12, "what can be done is done"


def test_two_shards_of_one_name(here):
    make_tars(here / "other", 1, start=50)
    make_tar(here / "in" / "x-000.tar.gz", {"a.png": image(9)}, "w:gz")
    score("in/x-000.tar", "other/x-000.tar", "in/x-000.tar.gz", out="out")
    assert len(list(Path("out").iterdir())) == 3 and len(rows("out")) == 9


@pytest.mark.parametrize("name", ["größe 100%.tar", "a" * 240 + ".tar", "-.tar", "x\ny.tar", "\udce9.tar"])
def test_odd_names(here, name):
    os.mkdir("odd")
    make_tar(here / "odd" / name, {"kä'y \n,=.png": image(1), "a!/b.png": image(2)})
    score("odd/*.tar", out="out")
    (file,) = Path("out").iterdir()
    assert file.name.isascii() and len(file.name) < 130
    score(f"odd/{name}", out="plain.parquet")
    assert rows(file) == rows("plain.parquet") and len(rows(file)) == 2


def test_a_shard_that_is_missing_is_reported_and_the_rest_done(here, capsys):
    score("in/x-{000..004}.tar", out="out", status=1)
    told = capsys.readouterr()
    assert "3 scored, 0 there already, 2 not read" in told.out
    assert "in/x-004.tar: no such file; check its name, then repeat the command" in told.out
    assert "in/x-003.tar: no such file" in told.err
    assert len(rows("out")) == 12


def test_a_metric_that_cannot_go_on_ends_the_run(here, capsys, monkeypatch):
    def fails(self, batch):
        raise WeightsError("the weights are gone")

    monkeypatch.setattr(Scorer, "_rows", fails)
    assert main(["score", "in/*.tar", *ENTROPY, "--out", "out"]) == 2
    assert "the weights are gone" in capsys.readouterr().err and not list(Path("out").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "none/out"], "no folder none; make it first"),
        (["--out", "in"], "is a folder of other things"),
        (["--out", "other"], "is a folder of other things"),
        (["--out", "https://host/out"], "is no place to write to"),
        (["--out", "s3://me:pass@bucket/out"], "without a query or a user"),
        (["--out", "s3://bucket/x.csv"], "a single file is written on this machine only; give a path, or"),
        (["--out", "s3://bucket/x.PARQUET"], "--out s3://bucket/x.PARQUET: a single file is written on this"),
        (["--out", "gs://bucket/x.jsonl"], "for a parquet of each shard a URL without suffix"),
    ],
)
def test_outputs_that_cannot_be(here, capsys, words, message):
    make_tars(here / "other", 1)
    assert main(["score", "in/*.tar", *ENTROPY, *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "pass" not in told


def test_a_parquet_of_somebody_else_stays(here, capsys):
    score("in/x-000.tar", out="out")
    (file,) = Path("out").iterdir()
    file.write_bytes(b"mine")
    assert main(["score", "in/*.tar", *ENTROPY, "--out", "out"]) == 2
    assert "is in the way, and not of such a run" in capsys.readouterr().err and file.read_bytes() == b"mine"


def test_a_run_with_a_journal_ends_with_it(here, monkeypatch, capsys):
    """Begun by a version that knew no shards."""
    with monkeypatch.context() as patch:
        patch.setattr(plan, "is_by_shards", lambda request: False)
        patch.setattr("pyiqa_ma_agiqa.scoring.run.write_output", lambda *given: 1 / 0)
        assert main(["score", "in/*.tar", *ENTROPY, "--out", "out"]) == 2
    assert Path("out.journal").exists()
    score("in/*.tar", out="out")
    assert os.listdir("out") == ["part-00000.parquet"] and not Path("out.journal").exists()


def killed_at(call, number):
    """The process ends as by a power cut when it comes to this call for the number-th time.

    One thread makes the call at a time: the earlier ones have ended by then.
    """
    before, calls, lock = getattr(Path, call), [], Lock()

    def die(self, *given):
        with lock:
            calls.append(self)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(self, *given)

    setattr(Path, call, die)


def test_killed_in_the_middle_of_a_write(here):
    # The first file that takes its name is the probe.
    process = start(
        here, "score", "in/*.tar", *ENTROPY, "--out", "out", before=partial(killed_at, "replace", 3)
    )
    process.join()
    assert process.exitcode == -signal.SIGKILL
    parts = list(Path("out").glob(".*.part"))  # two shards may have been written at a time
    assert parts and len(list(Path("out").glob("*.parquet"))) == 1
    score("in/*.tar", out="out")
    assert len(rows("out")) == 12 and all(part.exists() for part in parts)
    for part in parts:
        os.utime(part, (0, time.time() - run.DEAD - 1))
    score("in/*.tar", out="out")
    assert not any(part.exists() for part in parts)


def test_two_runs_at_once(here):
    make_tars(here / "in", 40)
    words = ["score", "in/*.tar", *ENTROPY, "--out", "out"]
    both = [start(here, *words) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0, Path("log").read_text()
    score("in/*.tar", out="plain.parquet")
    assert rows("out") == rows("plain.parquet")
    assert not [name for name in os.listdir("out") if name.startswith(".")]


def test_another_run_that_begins_deletes_the_probe(here, monkeypatch):
    by_itself = run.write_whole

    def write_and_lose(place, content):
        by_itself(place, content)
        Path(place).unlink()

    monkeypatch.setattr(run, "write_whole", write_and_lose)
    score("in/*.tar", out="out")
    assert len(rows("out")) == 12


def test_a_full_disk(small_disk, here, capsys):
    out = small_disk / "out"
    (small_disk / "filler").write_bytes(bytes(1_000_000))
    with open(small_disk / "rest", "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1000))
    assert main(["score", "in/*.tar", *ENTROPY, "--out", str(out)]) == 2
    assert "No space left on device); see to that, then the same command goes on" in capsys.readouterr().err
    (small_disk / "filler").unlink()
    score("in/*.tar", out=out)
    assert len(rows(out)) == 12
