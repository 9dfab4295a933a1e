"""The tables and figures of the pages against the result files."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from benchmarks.accuracy import accuracy_tables, published
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.common import filling, tables
from benchmarks.common.places import BENCHMARKS
from benchmarks.common.table_parts import source

from ..conftest import ROOT


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
        result |= {"cpu": "a CPU", "cores": 2, "threads": 1}
        result["command"] = f"python -m benchmarks.accuracy.accuracy {split}"
        result |= {"versions": {"pyiqa": "1", "torch": "2"}}
        folder = tmp_path / "results" / "accuracy" / split
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result))
    return tmp_path / "results"


def test_the_tables_are_those_of_the_result_files():
    old = list(tables.outdated(ROOT, tables.PAGES, BENCHMARKS))
    assert old == [], "run python -m benchmarks.common.tables"


def test_shifts_are_named_by_the_commit_that_they_are_held_against():
    command = json.loads((BENCHMARKS / "accuracy/shifts.json").read_text(encoding="utf-8"))["command"]
    assert f"| of commit {command.split()[-1]}, SRCC |" in tables.TABLES["shifts"](BENCHMARKS)


def test_the_published_figures_of_the_result_files_are_reached():
    """What was published for ma_agiqa stays what the result files say."""
    found = accuracy_tables.of_splits(BENCHMARKS)
    for split, images, srcc, plcc in (
        ("official", 597, 0.8936, 0.9322),
        ("prompt_disjoint", 587, 0.8964, 0.9347),
    ):
        figures = found[split]["metrics"]["ma_agiqa"]["agreement"]
        assert found[split]["images"] == images
        assert figures["srcc"]["value"] == pytest.approx(srcc, abs=5e-5)
        assert figures["plcc"]["value"] == pytest.approx(plcc, abs=5e-5)


def test_splits_stand_side_by_side_with_the_published_figures(results):
    text = accuracy_tables.accuracy(results)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "0.8125 [0.802, 0.823] | 0.7500 [0.740, 0.760] | 0.8125" in rows["ma_agiqa"]
    assert rows["pypi-niqe"].endswith("| 0.995 | .5236 / .5668 |")
    assert rows["musiq"].startswith("| musiq | not measured | ")
    assert rows["*MANIQA*"].endswith("| .8618 / .9115 |")
    assert rows["*MA-AGIQA*"].endswith("| .8939 / .9273 |")
    assert "niqe" not in rows and "*NIQE*" not in rows  # pypi-niqe stands for it
    assert "*MUSIQ*" not in rows
    order = list(rows)
    assert order.index("pypi-niqe") < order.index("*MA-AGIQA*") < order.index("musiq")
    assert "`official`, the split of the paper, shares prompts" in text
    assert "a comment in the authors' code has KRCC .7211 and RMSE .3756 for MA-AGIQA" in text


def test_the_split_of_m3_has_published_figures_of_its_own(results):
    assert "m3" not in accuracy_tables.accuracy(results)
    shutil.copytree(results / "accuracy" / "prompt_disjoint", results / "accuracy" / "m3")
    text = accuracy_tables.accuracy(results)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "read off a plot |" in rows["metric"]
    assert rows["*M3-AGIQA*"].endswith("| – | .9125 / .938 |")
    assert rows["*MA-AGIQA*"].endswith("| .8939 / .9273 | .871 / .914 |")
    assert rows["pypi-niqe"].endswith("| .5236 / .5668 | – |")
    assert len({line.count("|") for line in rows.values()}) == 1
    assert "`m3` 12." in text


def test_details_list_what_was_not_measured(results):
    text = accuracy_tables.accuracy_details(results)
    assert text.count("- weights not reachable (2): niqe, musiq") == 2
    assert "### Split `prompt_disjoint`, 12 test images" in text


PAGE = """# Title

In short: SRCC .1, and PLCC
.2 of ours. Elsewhere: .3.

| metric | SRCC, `official` | and so on

`python -m benchmarks.accuracy.accuracy ...`: long ago
`python -m benchmarks.accuracy.accuracy ...`: then, too

Text after the table.

## Another section

No result yet for the table precision: write this line for a new table.
"""
SRCC, PLCC = (
    filling.at("accuracy/official/result.json", f"metrics/ma_agiqa/agreement/{name}/value")
    for name in ("srcc", "plcc")
)
QUOTE = filling.Quote(
    "SRCC {.3}, and PLCC {1} of ours", (SRCC, lambda results: PLCC(results) - SRCC(results))
)
WHOLE = filling.Page(("accuracy", "precision"), (QUOTE,))


@pytest.fixture
def outdated(results, tmp_path):
    """Writes a page and gives what it should hold, or None if it holds that."""

    def call(text, page=WHOLE):
        path = tmp_path / "PAGE.md"
        path.write_text(text)
        return tables.outdated(tmp_path, {"PAGE.md": page}, results).get(path)

    return call


def test_a_changed_result_makes_the_page_outdated(outdated, results):
    filled = outdated(PAGE)
    assert filled.startswith(
        "# Title\n\nIn short: SRCC .812, and PLCC\n0.0 of ours. Elsewhere: .3.\n\n| metric |"
    )
    assert "0.8125 [0.802, 0.823]" in filled and "long ago" not in filled and "then, too" not in filled
    assert "\n\nText after the table.\n\n## Another section\n\nNo result yet for the table prec" in filled
    assert outdated(filled) is None
    file = results / "accuracy" / "official" / "result.json"
    result = json.loads(file.read_text())
    result["metrics"]["ma_agiqa"]["agreement"]["srcc"]["value"] = 0.1234
    file.write_text(json.dumps(result))
    again = outdated(filled)
    assert again.count(".1234 [") == 1 and "SRCC .123, and PLCC\n0.7 of ours" in again
    file.unlink()
    (results / "accuracy" / "prompt_disjoint" / "result.json").unlink()
    empty = outdated(again, filling.Page(("accuracy",)))
    assert "ours. Elsewhere: .3.\n\nNo result yet for the table accuracy: `python -m benchmarks.acc" in empty


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| metric | SRCC", "| metrics | SRCC", "PAGE.md: 0 lines begin with '| metric"),
        ("## Another", "| metric | SRCC, `official` |\n\n## Another", "2 lines begin with"),
        ("`python -m benchmarks.", "`python -m scripts.", "the table accuracy has no last line"),
        ("and PLCC\n", "or PLCC ", "0 sentences like"),
        ("Elsewhere", "SRCC .1, and PLCC .2 of ours", "2 sentences like"),
    ],
)
def test_what_a_page_has_lost_is_an_error(outdated, old, new, message):
    with pytest.raises(ValueError, match=message):
        outdated(PAGE.replace(old, new))


def test_a_block_does_not_swallow_the_next_section(outdated):
    lost = "\n".join(line for line in PAGE.splitlines() if not line.startswith("`python"))
    with pytest.raises(ValueError, match="no last line"):
        outdated(f"{lost}\n`python -m benchmarks.other`: of another table\n", filling.Page(("accuracy",)))


def test_a_figure_that_is_not_there_is_an_error(outdated):
    quote = filling.Quote("SRCC {.3},", (filling.at("accuracy/official/result.json", "images/none"),))
    with pytest.raises(ValueError, match="has no figure images/none"):
        outdated(PAGE, filling.Page((), (quote,)))


def test_pages_have_no_marks_for_results():
    for name in tables.PAGES:
        assert not re.search(r"<!-- /?(results|value)", (ROOT / name).read_text(encoding="utf-8"))


def test_the_commit_stands_beside_the_figures():
    result = {"command": "c", "date": "d", "cpu": "e", "cores": 2, "threads": 1}
    result |= {"versions": {"pyiqa": "1", "torch": "2"}}
    assert source(result).endswith("torch 2.")
    assert source(result | {"commit": "0123456789"}).endswith("torch 2; commit 0123456.")
    changed = {"commit": "0123456789", "uncommitted_changes": ["a.py", "b.py"]}
    assert source(result | changed).endswith("commit 0123456 with changes to a.py, b.py.")
    recorded = {"recorded_with_commit": "0123456789", "note": "One run."}
    assert source(result | recorded).endswith("recorded with commit 0123456. One run.")


def test_what_the_prose_says_of_robustness():
    """Claims of the pages of benchmarks/ that are bounds rather than figures."""
    robustness = json.loads((BENCHMARKS / "robustness" / "robustness.json").read_text())
    for part in (robustness, robustness["generated"]):
        for scores in part["score_by_scale"].values():
            half, _, same, larger, double = scores.values()
            assert half > same - 0.4 and abs(larger - same) < 0.2 and same - 0.35 < double < same + 0.1
    unsteady = {pair["photo"] for pair in robustness["generated"]["by_pair"] if not pair["steady"]}
    assert unsteady == {"AttnGAN_normal", "glide_normal", "DALLE2_normal", "sd1.5_lowstep"}


def test_every_method_named_after_a_metric_is_published():
    assert set(published.METHOD_OF.values()) <= set(published.AGIQA3K)
    for figures in published.AGIQA3K.values():
        assert all(re.fullmatch(r"\.\d{4}", figure) for figure in figures)


def test_the_recipes_are_in_the_readme():
    page = (BENCHMARKS / "accuracy" / "README.md").read_text(encoding="utf-8")
    for recipe in RECIPES.values():
        assert f"**{recipe.title}**" in page
