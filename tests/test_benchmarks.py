"""The benchmarks: their statistics, a run of the accuracy script, the tables of the READMEs."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr

from .conftest import ROOT
from .images import picture

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Imports a module of benchmarks/ as a run of a script there does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def statistics(script):
    return script("statistics_of_scores")


def sample(count: int = 80, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mos = rng.uniform(0.5, 4.5, count)
    return mos + noise * rng.standard_normal(count), mos, np.resize(["a", "b"], count)


def test_figures_are_those_of_scipy(statistics):
    scores, mos, generators = sample()
    figures = statistics.figures(scores, mos, generators)

    def logistic(x, b1, b2, b3, b4):
        return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / np.abs(b4)))

    start = (mos.max(), mos.min(), scores.mean(), 0.5)
    mapped = logistic(scores, *curve_fit(logistic, scores, mos, start, maxfev=10_000)[0])
    assert figures["srcc"] == pytest.approx(spearmanr(scores, mos)[0])
    assert figures["krcc"] == pytest.approx(kendalltau(scores, mos)[0])
    assert figures["plcc"] == pytest.approx(pearsonr(mapped, mos)[0], abs=1e-6)
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean((mapped - mos) ** 2)), abs=1e-6)


def test_rank_correlations_by_hand(statistics):
    # One neighbouring pair of five swapped: 1 - 6 * 2 / (5 * 24), and 9 of 10 pairs in order less 1.
    figures = statistics.figures(np.array([1, 2, 3, 5, 4.0]), np.arange(1, 6.0), np.array(["a"] * 5))
    assert figures["srcc"] == pytest.approx(0.9)
    assert figures["krcc"] == pytest.approx(0.8)


def test_a_logistic_that_does_not_fit_is_reported(statistics):
    scores, mos, generators = sample()
    assert statistics.logistic_converges(scores, mos)
    assert not statistics.logistic_converges(-1000 * scores, mos)
    assert not statistics.report(-1000 * scores, mos, generators, repeats=2)["logistic_converged"]


def test_within_generators(statistics):
    scores, mos = np.array([1, 2, 3, 9, 8, 7.0, 5, 5]), np.array([1, 2, 3, 1, 2, 3.0, 4, 5])
    generators = np.array(["up"] * 3 + ["down"] * 3 + ["constant"] * 2)
    assert statistics.within_generator_srcc(scores, mos, generators) == 0
    assert statistics.within_generator_srcc(scores[:3], mos[:3], generators[:3]) == pytest.approx(1)
    assert np.isnan(statistics.within_generator_srcc(scores[6:], mos[6:], generators[6:]))


def test_generator_mean(statistics):
    assert statistics.generator("sd1.5_lowcorr_012.jpg") == "sd1.5_lowcorr"
    means = statistics.generator_mean(np.array([1, 2, 4.0]), np.array(["a", "a", "b"]), np.array(["b", "a"]))
    assert means.tolist() == [4, 1.5]


def test_intervals_contain_the_value_repeat_and_shrink_with_more_images(statistics):
    few = statistics.report(*sample(40), repeats=100)
    many = statistics.report(*sample(400), repeats=100)
    assert statistics.report(*sample(40), repeats=100) == few
    for name in ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc"):
        assert few[name]["low"] <= few[name]["value"] <= few[name]["high"]
        assert many[name]["high"] - many[name]["low"] < few[name]["high"] - few[name]["low"]


def test_probability_of_better_srcc(statistics):
    good, mos, _ = sample(noise=0.2)
    bad = sample(noise=3)[0]
    assert statistics.probability_of_better_srcc(good, bad, mos, 50) == 1
    assert statistics.probability_of_better_srcc(bad, good, mos, 50) == 0
    assert statistics.probability_of_better_srcc(good, 2 * good, mos, 50) == 0.5


@pytest.fixture
def dataset(tmp_path):
    """A folder like AGIQA-3K's: two generators, ten images each, noisier ones with lower MOS."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(20):
        name = f"{('one_normal', 'two_lowstep')[number % 2]}_{number:03}.png"
        noise = 3 * number * np.random.default_rng(number).standard_normal((96, 96, 3))
        pixels = np.clip(picture(96, 96, number) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        rows.append({"name": name, "mos_quality": 4 - number / 6, "part": "train" if number < 8 else "test"})
    table = pd.DataFrame(rows)
    table[["name", "mos_quality"]].to_csv(folder / "data.csv", index=False)
    splits = table.rename(columns={"part": "official"}).assign(prompt_disjoint="train")
    splits[["name", "official", "prompt_disjoint"]].to_csv(folder / "splits.csv", index=False)
    return folder


def run_accuracy(script, monkeypatch, data, out, *more):
    arguments = ["accuracy.py", "--data", str(data), "--out", str(out), "--repeats", "20", *more]
    monkeypatch.setattr(sys, "argv", arguments)
    script("accuracy").main()


def test_accuracy_end_to_end(script, monkeypatch, dataset, tmp_path):
    out = tmp_path / "results"
    run_accuracy(script, monkeypatch, dataset, out, "--metric", "piqe")
    result = json.loads((out / "accuracy_piqe_official.json").read_text())
    scores = pd.read_csv(out / "scores_piqe_official.csv")
    assert list(scores.columns) == ["name", "mos", "generator", "score"]
    assert result["images"] == len(scores) == 12
    assert (scores["score"] < 0).all()  # piqe is lower-better, so it is negated
    assert result["agreement"]["srcc"]["value"] == pytest.approx(
        spearmanr(scores["score"], scores["mos"])[0], abs=1e-5
    )
    assert result["generator_mean_baseline"]["within_generator_srcc"]["value"] is None
    assert "weights_sha256" not in result
    # A result file does not tell where things lie on the machine that made it.
    assert "--data data --out results" in result["command"]
    assert {"date", "cpu", "threads", "versions"} <= set(result)


def test_accuracy_of_ma_agiqa_writes_gate_and_shares(
    script, monkeypatch, dataset, tmp_path, untrained_metric
):
    from pyiqa_ma_agiqa.storage import save_weights

    weights, out = tmp_path / "weights.safetensors", tmp_path / "results"
    save_weights(untrained_metric.net, weights)
    splits = pd.read_csv(dataset / "splits.csv")
    splits.loc[13:, "official"] = "val"  # five test images are enough
    splits.to_csv(dataset / "splits.csv", index=False)
    run_accuracy(script, monkeypatch, dataset, out, "--weights", str(weights), "--repeats", "2")
    result = json.loads((out / "accuracy_ma_agiqa_official.json").read_text())
    assert len(result["weights_sha256"]) == 64
    scores = pd.read_csv(out / "scores_ma_agiqa_official.csv")
    shares = [column for column in scores if column.startswith("share ")]
    assert len(shares) == len([column for column in scores if column.startswith("gate ")]) == 3
    assert scores[shares].sum(axis=1).to_numpy() == pytest.approx(scores["score"].to_numpy(), abs=1e-4)


def test_levels_of_degradation(script):
    robustness = script("robustness")
    falling, constant = np.linspace(4, 1, 8), np.full(8, 2.0)
    table = pd.concat(
        pd.DataFrame({"photo": "p", "kind": kind, "level": range(8), "score": scores})
        for kind, scores in {"falling": falling, "rising": -falling, "constant": constant}.items()
    )
    pairs = robustness.summary(table).set_index("kind")
    assert pairs["rank_correlation"].to_dict() == pytest.approx({"falling": -1, "rising": 1, "constant": 0})
    assert pairs.index[pairs["steady"]].tolist() == ["falling"]
    image = picture(90, 160)
    assert robustness.cropped(image, 1.0).shape == (90, 90, 3)
    assert robustness.cropped(image, 3.0).shape == (53, 160, 3)
    assert robustness.left_small(image, 0.0, np.random.default_rng(0)).shape == (60, 107, 3)


def test_every_photograph_comes_with_scikit_image(script, monkeypatch):
    import socket

    def refused(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    robustness = script("robustness")
    for name in robustness.PHOTOS:
        image = robustness.photograph(name)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def test_interleaved_times_every_call_once_a_round(script):
    calls: list[str] = []
    times = script("timing").interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4, "cpu", "test"
    )
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert len(calls) == 2 + 2 * 2 * 4  # one warm-up each, then an untimed and a timed call a round


def test_the_tables_are_those_of_the_result_files(script):
    tables = script("tables")
    assert list(tables.outdated(tables.PAGES, tables.RESULTS)) == [], "run python benchmarks/tables.py"


def test_a_changed_result_makes_the_tables_outdated(script, monkeypatch, dataset, tmp_path):
    tables = script("tables")
    page, results = tmp_path / "README.md", tmp_path / "results"
    page.write_text("before <!-- results:accuracy -->old<!-- /results --> after")
    assert "No result yet" in tables.outdated([page], results)[page]
    run_accuracy(script, monkeypatch, dataset, results, "--metric", "piqe")
    filled = tables.outdated([page], results)[page]
    assert filled.startswith("before <!-- results:accuracy -->\n\n| ")
    assert filled.endswith("<!-- /results --> after")
    assert "| piqe | official | " in filled
    page.write_text(filled)
    assert tables.outdated([page], results) == {}
    path = results / "accuracy_piqe_official.json"
    result = json.loads(path.read_text())
    result["agreement"]["srcc"]["value"] = 0.1234
    path.write_text(json.dumps(result))
    assert "0.1234" in tables.outdated([page], results)[page]


def test_unknown_and_unclosed_markers_are_errors(script, tmp_path):
    tables = script("tables")
    with pytest.raises(ValueError, match="no table is called speed"):
        tables.fill("<!-- results:speed --><!-- /results -->", tmp_path)
    with pytest.raises(ValueError, match="needs a"):
        tables.fill("<!-- results:accuracy -->", tmp_path)
