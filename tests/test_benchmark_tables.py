"""The tables and figures of the READMEs against the result files that they name."""

from __future__ import annotations

import json
import re

import pytest

from .benchmark_scripts import script
from .conftest import ROOT

tables, published = script("tables"), script("published")


def entry(value: float) -> dict:
    names = ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc")
    statistics = {name: {"value": value, "low": value - 0.01, "high": value + 0.01} for name in names}
    statistics |= {"images": 12, "logistic_converged": True}
    return {"measured": True, "version": "weights 1234", "agreement": statistics}


@pytest.fixture
def results(tmp_path):
    """Result files of both splits, as `accuracy.py` writes them."""
    missing = {"measured": False, "why": "weights not reachable: no network"}
    for split, value in (("official", 0.8125), ("prompt_disjoint", 0.75)):
        metrics = {"ma_agiqa": entry(value), "pypi-niqe": entry(0.5), "niqe": missing, "musiq": missing}
        metrics["pypi-niqe"]["probability_first_is_better"] = 0.995
        result = {"metrics": metrics, "first": "ma_agiqa", "images": 12, "date": "2026-11-21"}
        result |= {"cpu": "a CPU", "cores": 2, "threads": 1, "command": f"python accuracy.py {split}"}
        result |= {"versions": {"pyiqa": "1", "torch": "2"}}
        folder = tmp_path / "results" / f"accuracy_{split}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result))
    return tmp_path / "results"


def test_the_tables_are_those_of_the_result_files():
    assert list(tables.outdated(tables.PAGES, tables.RESULTS)) == [], "run python benchmarks/tables.py"


def test_the_published_figures_of_the_result_files_are_reached():
    """What was published for ma_agiqa stays what the result files say."""
    official, disjoint = (tables.of_splits(tables.RESULTS)[name] for name in tables.SPLITS)
    for result, images, srcc, plcc in ((official, 597, 0.8960, 0.9317), (disjoint, 587, 0.8976, 0.9360)):
        figures = result["metrics"]["ma_agiqa"]["agreement"]
        assert result["images"] == images
        assert figures["srcc"]["value"] == pytest.approx(srcc, abs=5e-5)
        assert figures["plcc"]["value"] == pytest.approx(plcc, abs=5e-5)


def test_splits_stand_side_by_side_with_the_published_figures(results):
    text = tables.accuracy(results)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "0.8125 [0.802, 0.823] | 0.7500 [0.740, 0.760] | 0.8125" in rows["ma_agiqa"]
    assert rows["pypi-niqe"].endswith("| 0.995 | .5236 / .5668 |")
    assert rows["musiq"].startswith("| musiq | not measured | ")
    assert rows["*MANIQA*"].endswith("| .8618 / .9115 |")
    assert rows["*MA-AGIQA*"].endswith("| .8939 / .9273 / .7211 / .3756 |")
    assert "niqe" not in rows and "*NIQE*" not in rows  # pypi-niqe stands for it
    assert "*MUSIQ*" not in rows
    order = list(rows)
    assert order.index("pypi-niqe") < order.index("*MA-AGIQA*") < order.index("musiq")
    assert "`official`, the split of the paper, shares prompts" in text


def test_details_list_what_was_not_measured(results):
    text = tables.accuracy_details(results)
    assert text.count("- weights not reachable (2): niqe, musiq") == 2
    assert "### Split `prompt_disjoint`, 12 test images" in text


def test_a_changed_result_makes_the_pages_outdated(results, tmp_path):
    page = tmp_path / "README.md"
    marked = "<!-- value:accuracy_official/result.json metrics/ma_agiqa/agreement/srcc/value 3 -->"
    page.write_text(f"SRCC {marked}.1<!-- /value -->\n\n<!-- results:accuracy -->old<!-- /results --> after")
    filled = tables.outdated([page], results)[page]
    assert filled.startswith(f"SRCC {marked}.812<!-- /value -->\n\n<!-- results:accuracy -->\n\n| ")
    assert filled.endswith("<!-- /results --> after")
    page.write_text(filled)
    assert tables.outdated([page], results) == {}
    file = results / "accuracy_official" / "result.json"
    result = json.loads(file.read_text())
    result["metrics"]["ma_agiqa"]["agreement"]["srcc"]["value"] = 0.1234
    file.write_text(json.dumps(result))
    assert tables.outdated([page], results)[page].count(".1234 [") == 1
    assert f"{marked}.123<!-- /value -->" in tables.outdated([page], results)[page]


def test_a_page_without_results_says_so(tmp_path):
    assert "No result yet" in tables.fill("<!-- results:accuracy --><!-- /results -->", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results:speed --><!-- /results -->", "no table is called speed"),
        ("<!-- results:accuracy -->", "needs a"),
        ("<!-- value:none.json a/b 3 -->1<!-- /value -->", "none.json has no figure a/b"),
        (
            "<!-- value:accuracy_official/result.json images/none 3 -->1<!-- /value -->",
            "no figure images/none",
        ),
        ("<!-- value:accuracy_official/result.json images 3 -->1", "needs a"),
    ],
)
def test_wrong_markers_are_errors(results, text, message):
    with pytest.raises(ValueError, match=message):
        tables.fill(text, results)


def test_every_method_named_after_a_metric_is_published():
    assert set(published.METHOD_OF.values()) <= set(published.AGIQA3K)
    for figures in published.AGIQA3K.values():
        assert all(re.fullmatch(r"\.\d{4}", figure) for figure in figures)


def test_the_recipes_are_in_the_readme():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for recipe in script("recipes").RECIPES.values():
        assert f"**{recipe.title}**" in page
