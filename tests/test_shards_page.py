"""Every command on the page of shards is run: from a folder here to a bucket of an S3 server."""

from __future__ import annotations

import gzip
import re
import shlex

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring import ray_pool
from pyiqa_ma_agiqa.scoring.inputs import storage
from pyiqa_ma_agiqa.scoring.shards import on_ray, run

from .conftest import ROOT
from .scoring.made_shards import make_tars

PAGE = (ROOT / "docs" / "shards.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


def test_the_commands_of_the_page(tmp_path, monkeypatch, s3, short_towers, capsys):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "shards", 3, 2)
    for file in (tmp_path / "shards").iterdir():
        storage.write_object(f"s3://images/shards/{file.name}", file.read_bytes())
    # The cluster has tests of its own; here this machine stands in for it.
    monkeypatch.setattr(ray_pool, "connect", lambda: None)
    monkeypatch.setattr(ray_pool, "cluster_device", lambda ray, name: "cpu")
    monkeypatch.setattr(
        on_ray, "shards_on_cluster", lambda shards, work, actors: run._on_this_machine(iter(shards), work)
    )
    ran = []
    for words in COMMANDS:
        while "=" in words[0]:
            words = words[1:]
        if words[0] == "pip":
            continue
        assert words[0] == "pyiqa-ma-agiqa"
        assert main(words[1:]) == 0, capsys.readouterr()
        ran.append((words[1], capsys.readouterr().out))
    assert [name for name, _ in ran] == ["score", "score", "score", "compare", "explain", "score"]
    made = [re.search(r"shards +(.*)", text)[1] for name, text in ran if name == "score"]
    assert made == [
        *("3 scored, 0 there already, 0 not read", "0 scored, 3 there already, 0 not read"),
        *("3 scored, 0 there already, 0 not read", "0 scored, 3 there already, 0 not read"),
    ]
    assert re.search(r"compared in 6 pairs|6 pairs", ran[3][1])
    assert (tmp_path / "explained" / "000-000_explained.html").is_file()


@pytest.mark.parametrize("name", ["shards/x-000.tar!/000-000.png", "shards/x-000.tar.gz!/000-001.png"])
def test_a_row_is_explained(tmp_path, monkeypatch, short_towers, capsys, name):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "shards", 1, 2)
    content = (tmp_path / "shards" / "x-000.tar").read_bytes()
    (tmp_path / "shards" / "x-000.tar.gz").write_bytes(gzip.compress(content))
    assert main(["explain", name, "shards/x-000.tar!/none.png", "--device", "cpu", "--out", "explained"]) == 1
    told = capsys.readouterr()
    assert "shards/x-000.tar!/none.png: the tar has no such member; check the name" in told.err
    assert told.out.startswith(f"{name}: ") and len(list((tmp_path / "explained").iterdir())) == 2
