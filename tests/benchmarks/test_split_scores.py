"""Scores of a run on another split, on a small folder."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from benchmarks.accuracy import split_scores
from benchmarks.accuracy.accuracy import kept_scores
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.storage import save_weights
from pyiqa_ma_agiqa.input_checks import read_tensor

from ..rated import rated_folder

pytestmark = pytest.mark.usefixtures("short_towers")


def test_scores_of_a_run_on_another_split_are_kept(tmp_path, monkeypatch):
    """With its weights, on the test part of its own split; accuracy.py reads them."""
    data, trained = rated_folder(tmp_path, count=18), tmp_path / "run"
    table = pd.read_csv(data / "splits.csv")
    parts = ["test" if number < 6 else "train" for number in range(18)]
    table.assign(m3=parts).to_csv(data / "splits.csv", index=False)
    words = ["split_scores.py", "--run", trained, "--data", data, "--out", tmp_path]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    with pytest.raises(SystemExit, match="no finished run"):
        split_scores.main()
    trained.mkdir()
    metrics = {"recipe": {"data": {"split_column": "m3"}}}
    (trained / "metrics.json").write_text(json.dumps(metrics))
    net = MAAGIQA()
    net.bias.data.add_(1)
    save_weights(net, trained / "weights.safetensors")
    split_scores.main()

    file = tmp_path / "scores_ma_agiqa_m3.csv"
    kept = pd.read_csv(file, skiprows=1)
    assert kept["name"].tolist() == table["name"][:6].tolist()
    first = net(read_tensor(data / "images" / kept["name"][0]), return_parts=True)
    assert kept["score"][0] == pytest.approx(first["score"].item(), abs=1e-4)
    assert kept["high"][0] == pytest.approx(first["interval"][0, 1].item(), abs=1e-4)
    scores, version = kept_scores(file, "ma_agiqa", table["name"][:6])
    assert scores.tolist() == kept["score"].tolist()
    assert "trained on the train part of m3; scores kept in scores_ma_agiqa_m3.csv" in version
