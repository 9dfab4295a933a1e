"""`benchmarks/accuracy/accuracy.py` from end to end on small folders."""

from __future__ import annotations

import io
import json
import shlex
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import kendalltau, pearsonr, spearmanr

from benchmarks.accuracy import accuracy, recipes, score_cache, scoring
from benchmarks.accuracy.rated_folder import read_ratings
from benchmarks.common import network
from pyiqa_ma_agiqa.training.agreement import fit_to_mos

from ..images import picture
from ..passed_by import with_a_short_tower
from ..rated import rated_folder, write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return rated_folder(tmp_path_factory.mktemp("rated"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No connection, and none of the weights that this machine may have downloaded."""

    def refused(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path / "hub"))
    before = socket.getdefaulttimeout()
    yield
    socket.setdefaulttimeout(before)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script as its command line does; gives the folder that it wrote.

    Most of the time would go into the pictures and the intervals, which only some tests want.
    """

    def call(*arguments: object, out: str = "out", whole: bool = False) -> Path:
        target = tmp_path / out
        extra = ["--out", target, "--cache", tmp_path / "cache", "--repeats", 20 if whole else 2]
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["accuracy.py", *map(str, [*arguments, *extra])])
            if not whole:
                patch.setattr(accuracy, "draw_all", lambda *_: None)
            accuracy.main()
        return target

    return call


def of_folder(folder: Path, *more: object) -> list[object]:
    return ["--data", folder / "images", "--mos", folder / "data.csv", *more]


def test_part(folder: Path) -> list[object]:
    return ["--split", folder / "splits.csv", "--split-column", "official", "--part", "test"]


test_part.__test__ = False  # type: ignore[attr-defined]


def test_every_statistic_from_end_to_end(run, folder):
    out = run(*of_folder(folder, *test_part(folder), "--metrics", "entropy", "piqe", "niqe"), whole=True)
    result = json.loads((out / "result.json").read_text())
    scores = pd.read_parquet(out / "scores.parquet")
    table = pd.read_csv(out / "table.csv").set_index(["metric", "generator"])
    baseline = accuracy.BASELINE
    assert list(scores) == ["name", "mos", "generator", "entropy", "piqe", baseline]
    assert result["images"] == len(scores) == 30

    ratings = pd.read_csv(folder / "data.csv")
    assert scores["mos"].tolist() == ratings["mos_quality"][10:].tolist()
    assert set(scores["generator"]) == {"one_normal", "two_lowstep"}
    assert (scores["piqe"] <= 0).all(), "lower is better for piqe, so it is negated"
    assert result["metrics"]["piqe"]["negated"]
    means = ratings[:10].groupby(ratings["name"].str.rsplit("_", n=1).str[0])["mos_quality"].mean()
    assert scores[baseline].tolist() == pytest.approx(scores["generator"].map(means).tolist())

    groups = {"all": scores} | {str(name): group for name, group in scores.groupby("generator")}
    for metric in ("entropy", "piqe"):
        for name, group in groups.items():
            values, mos = group[metric].to_numpy(), group["mos"].to_numpy()
            fitted = fit_to_mos(values, mos)
            row = table.loc[metric, name]
            assert row["images"] == len(group)
            assert row["srcc"] == pytest.approx(spearmanr(values, mos)[0], rel=1e-4)
            assert row["krcc"] == pytest.approx(kendalltau(values, mos)[0], rel=1e-4)
            assert row["plcc"] == pytest.approx(pearsonr(fitted, mos)[0], rel=1e-4)
            assert row["rmse"] == pytest.approx(np.sqrt(np.mean((fitted - mos) ** 2)), rel=1e-4)
            assert row["srcc_low"] <= row["srcc_high"]
        within = np.mean([table.loc[metric, name]["srcc"] for name in groups if name != "all"])
        assert table.loc[metric, "all"]["within_generator_srcc"] == pytest.approx(within, rel=1e-4)
    agreement = spearmanr(scores["entropy"], scores["piqe"])[0]
    assert result["rank_agreement"]["entropy"]["piqe"] == pytest.approx(agreement, rel=1e-4)

    rows = np.random.default_rng(0).integers(30, size=(20, 30))
    mos, first, second = (scores[name].to_numpy() for name in ("mos", "entropy", "piqe"))
    wins = [spearmanr(first[r], mos[r])[0] > spearmanr(second[r], mos[r])[0] for r in rows]
    assert result["metrics"]["piqe"]["probability_first_is_better"] == pytest.approx(np.mean(wins))
    assert "probability_first_is_better" not in result["metrics"]["entropy"]

    assert result["metrics"]["niqe"] == {
        "measured": False,
        "why": "weights not reachable: <urlopen error no network in this test>",
    }
    page = (out / "table.md").read_text()
    assert "weights not reachable (1): niqe" in page
    assert f"| piqe | {result['metrics']['piqe']['agreement']['srcc']['value']:.4f} [" in page
    for drawn in ("predicted_vs_mos", "agreement", "rank_agreement"):
        assert (out / f"{drawn}.png").stat().st_size > 5000
    # A result file does not tell where things lie on the machine that made it.
    assert str(folder) not in (out / "result.json").read_text()
    assert "--data images --mos data.csv" in result["command"]
    assert {"date", "cpu", "threads", "versions"} <= set(result)


def test_only_what_is_new_is_scored(run, monkeypatch, tmp_path):
    folder = rated_folder(tmp_path / "rated", 12)
    built, scored = [], []
    build = scoring.scorer

    def counted(name, weights, device):
        built.append(name)
        score = build(name, weights, device)
        return lambda path: scored.append(Path(path).name) or score(path)

    monkeypatch.setattr(scoring, "scorer", counted)
    first = pd.read_parquet(run(*of_folder(folder, "--metrics", "piqe")) / "scores.parquet")
    assert (len(built), len(scored)) == (1, 12)
    again = run(*of_folder(folder, "--metrics", "piqe", "entropy"), out="again")
    assert (built, len(scored)) == (["piqe", "entropy"], 24)
    assert pd.read_parquet(again / "scores.parquet")["piqe"].equals(first["piqe"])

    images = sorted((folder / "images").iterdir())
    images[3].write_bytes(images[4].read_bytes())  # known content under another name
    run(*of_folder(folder, "--metrics", "piqe"))
    assert len(scored) == 24
    Image.fromarray(picture(64, 64, 99)).save(images[0])  # unknown content under a known name
    run(*of_folder(folder, "--metrics", "piqe"))
    assert scored[24:] == [images[0].name]


def test_an_interrupted_run_keeps_its_scores(tmp_path):
    cache = score_cache.ScoreCache
    cache(tmp_path, "clipiqa+", "1").add("image", 0.123456789012345678)
    with cache(tmp_path, "clipiqa+", "1").path.open("a") as file:
        file.write('{"image": "cut o')
    kept = cache(tmp_path, "clipiqa+", "1")
    assert kept.scores == {"image": 0.123456789012345678}
    assert cache(tmp_path, "clipiqa+", "2").scores == {}
    assert cache(tmp_path, "clipiqa", "1").scores == {}


def test_versions_name_package_and_weights(tmp_path, untrained_metric):
    import pyiqa

    from pyiqa_ma_agiqa import __version__
    from pyiqa_ma_agiqa.compact.storage import save_weights

    weights = tmp_path / "weights.safetensors"
    save_weights(untrained_metric.net, weights)
    assert scoring.version("piqe") == f"pyiqa {pyiqa.__version__}, piqe"
    shipped, other = scoring.version("ma_agiqa"), scoring.version("ma_agiqa", weights)
    assert shipped.startswith(f"pyiqa-ma-agiqa {__version__}, weights ")
    assert len({shipped, other, scoring.version("ma_agiqa_owl2")}) == 3


def test_another_training_run(run, tmp_path, untrained_metric, monkeypatch):
    import pyiqa

    from pyiqa_ma_agiqa.compact.storage import save_weights

    create = pyiqa.create_metric
    monkeypatch.setattr(pyiqa, "create_metric", lambda *a, **k: with_a_short_tower(create(*a, **k)))
    folder, weights = rated_folder(tmp_path / "rated", 5), tmp_path / "weights.safetensors"
    save_weights(untrained_metric.net, weights)
    scores = pd.read_parquet(run(*of_folder(folder, "--weights", weights)) / "scores.parquet")
    metric = pyiqa.create_metric("ma_agiqa", pretrained_model_path=str(weights), device="cpu")
    image = folder / "images" / scores["name"][2]
    assert scores["ma_agiqa"][2] == pytest.approx(metric(str(image)).item(), abs=1e-5)


def test_kept_scores_are_used_instead(run, folder, tmp_path):
    names = pd.read_csv(folder / "data.csv")["name"]
    kept = tmp_path / "kept.csv"
    table = pd.DataFrame({"name": names[::-1], "score": np.arange(len(names), 0, -1)}).to_csv(index=False)
    kept.write_text("# weights of another day\n" + table)
    out = run(*of_folder(folder, "--metrics", "piqe", "ma_agiqa_owl2", "--scores", f"ma_agiqa_owl2={kept}"))
    scores = pd.read_parquet(out / "scores.parquet")
    assert scores["ma_agiqa_owl2"].tolist() == list(range(1, 41))
    version = json.loads((out / "result.json").read_text())["metrics"]["ma_agiqa_owl2"]["version"]
    assert version.startswith("weights of another day; scores kept in kept.csv (")
    again = run(*of_folder(folder, "--metrics", "piqe", "--scores", out / "scores.parquet"), out="again")
    assert pd.read_parquet(again / "scores.parquet")["piqe"].equals(scores["piqe"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mos", "missing.csv"], "missing.csv: no such file"),
        (["--mos-column", "rating"], "no column rating; name one of name, prompt, mos_quality"),
        (["--generator-column", "model"], "no column model"),
        (["--metrics", "pique"], "pyiqa has no metric pique; did you mean piqe"),
        (["--metrics", "psnr"], "psnr needs a reference image"),
        (["--part", "test"], "--part needs --split"),
        (["--split", "SPLITS"], "say which column is the split with --split-column: official, other"),
        (["--split", "SPLITS", "--split-column", "other", "--part", "test"], "no part test; it has train"),
        (["--data", "elsewhere"], "one_normal_000.png: no such image, which"),
        (["--scores", "niqe=SPLITS"], "niqe is not among the metrics"),
        (["--scores", "SPLITS"], "no column piqe or score"),
        (["--weights", "missing.safetensors"], "missing.safetensors: no such file"),
    ],
)
def test_mistakes_are_one_clear_line(run, folder, change, message):
    change = [str(folder / "splits.csv").join(word.split("SPLITS")) for word in change]
    with pytest.raises(SystemExit) as stop:
        run(*of_folder(folder), "--metrics", "piqe", *change)
    assert message in str(stop.value)
    assert str(stop.value).startswith("accuracy.py: ")
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("one_normal_000.png,p,many", "one_normal_000.png has no number as its MOS"),
        ("one_normal_002.png,p,3\none_normal_002.png,p,3", "one_normal_002.png stands there more than once"),
    ],
)
def test_bad_ratings_are_named(run, folder, tmp_path, row, message):
    ratings = tmp_path / "ratings.csv"
    ratings.write_text(f"name,prompt,mos_quality\n{row}\n")
    with pytest.raises(SystemExit, match=message):
        run("--data", folder / "images", "--mos", ratings, "--metrics", "piqe")


def test_a_metric_that_fails_on_an_image_is_a_row(run, folder, monkeypatch):
    def fragile(name, weights, device):
        def score(path):
            raise RuntimeError("too small")

        return score

    monkeypatch.setattr(scoring, "scorer", fragile)
    out = run(*of_folder(folder, "--metrics", "piqe"), whole=True)
    entry = json.loads((out / "result.json").read_text())["metrics"]["piqe"]
    assert entry == {
        "measured": False,
        "why": "fails on one_normal_000.png: RuntimeError: too small",
    }


def test_generators_from_a_column_or_a_pattern(tmp_path):
    table = tmp_path / "ratings.csv"
    table.write_text("image_name,MOS,model\nSD_1_00.jpg,1,x\n10004473376.jpg,2,y\na/glide_normal_7.png,3,x\n")
    assert read_ratings(table)["generator"].tolist() == ["SD_1", "all", "glide_normal"]
    assert read_ratings(table, generator_column="model")["generator"].tolist() == ["x", "y", "x"]
    assert read_ratings(table, generator_pattern="([A-Za-z]+)_")["generator"].tolist() == [
        "SD",
        "all",
        "glide",
    ]


TINY = {
    "agiqa3k": (
        "data.csv",
        "images",
        ["sd1.5_lowcorr_{:03}.jpg", "glide_normal_{:03}.jpg"],
        "name,mos_quality",
    ),
    "aigcqa20k": ("info_train.csv", "train", ["DALLE2_{:04}.png", "SD1.4_{:04}.png"], "name,prompt,mos"),
    "aigciqa2023": (
        "AIGCIQA2023.csv",
        "Image/allimg",
        ["{}.png"],
        ",name,prompt,quality_mos,authenticity_mos",
    ),
    "pku_aigiqa4k": (
        "annotation.xlsx",
        "All",
        ["SD_1000_{:02}.jpg", "MJ_0_{:02}.jpg"],
        "Image_prompt,Text_prompt,Generated_image,MOS_q,MOS_a,MOS_c,MOS",
    ),
    "koniq10k": (
        "koniq10k_distributions_sets.csv",
        "1024x768",
        ["1000447{:04}.jpg"],
        "image_name,c1,MOS,set",
    ),
    "spaq": (
        "Annotations/MOS and Image attribute scores.xlsx",
        "TestImage",
        ["{:05}.jpg"],
        "Image name,MOS,Brightness",
    ),
}
"""Ratings file, folder of images, names and columns of each data set."""


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_on_a_tiny_folder_of_the_same_form(run, tmp_path, name):
    ratings, images, forms, head = TINY[name]
    data = tmp_path / "a data set"
    names = [forms[number % len(forms)].format(number) for number in range(40)]
    mos = write_images(data / images, names)
    columns = head.split(",")
    wanted = next(
        column for column in ("quality_mos", "MOS_q", "mos_quality", "mos", "MOS") if column in columns
    )
    named = next(
        column for column in ("Generated_image", "Image name", "image_name", "name") if column in columns
    )
    table = pd.DataFrame({column: 7.0 for column in columns}, index=range(40))
    table[named], table[wanted] = names, mos
    if "set" in table:
        table["set"] = ["training", "validation", "test", "test"] * 10
    file = data / ratings
    file.parent.mkdir(exist_ok=True)
    table.to_excel(file, index=False) if file.suffix == ".xlsx" else table.to_csv(file, index=False)

    line = shlex.join(recipes.filled(recipes.RECIPES[name], data))
    # One that has generators, and one that has none.
    out = run(*shlex.split(line), "--metrics", "piqe", whole=name in ("agiqa3k", "koniq10k"))
    scores = pd.read_parquet(out / "scores.parquet")
    expected = {"agiqa3k": 8, "aigcqa20k": 8, "pku_aigiqa4k": 10, "koniq10k": 20}.get(name, 40)
    assert len(scores) == expected
    assert (
        dict(zip(scores["name"], scores["mos"], strict=True)).items()
        <= dict(zip(names, mos, strict=True)).items()
    )
    generators = {
        "agiqa3k": {"sd1.5_lowcorr", "glide_normal"},
        "aigcqa20k": {"DALLE2", "SD1.4"},
        "pku_aigiqa4k": {"MJ"},  # every fourth row: only odd ones
    }.get(name, {"all"})
    assert set(scores["generator"]) == generators


@pytest.mark.parametrize(("fault", "reached"), [(OSError("no route"), False), (None, True)])
def test_without_a_network_the_hub_is_not_asked_again(monkeypatch, fault, reached):
    import huggingface_hub.constants

    def probed(url, timeout):
        if fault:
            raise fault
        return io.BytesIO()

    monkeypatch.setattr("urllib.request.urlopen", probed)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert network.fail_soon() is reached
    assert huggingface_hub.constants.HF_HUB_OFFLINE is not reached
    assert socket.getdefaulttimeout() == network.SECONDS


def test_all_stands_for_every_no_reference_metric_of_pyiqa():
    import pyiqa

    names = scoring.expand(["pypi-niqe", "piqe", "all", "piqe"])
    assert names[:2] == ["pypi-niqe", "piqe"]
    assert sorted(names[1:]) == sorted(pyiqa.list_models(metric_mode="NR"))
