"""What scores were made with: in every row of an output, and held against the other side's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

from pyiqa_ma_agiqa import __version__
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.comparing.score_sets import _as_text, read_scores
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring.columns import ORIGIN, output_columns
from pyiqa_ma_agiqa.scoring.origins import Origin, check_same, lower_is_better, origin_here, with_origin
from pyiqa_ma_agiqa.scoring.rows.output import WRITERS, write_output
from pyiqa_ma_agiqa.weights.manifest import entry

from ..images import picture

OURS = Origin("ma_agiqa", "pyiqa-ma-agiqa/0.1.0 pyiqa/0.1.16", "1c4f368c92c5")
PIQE = Origin("piqe", OURS.version, "")


def write(path, origin=OURS, scores=(1.0, 2.0)):
    blank = dict.fromkeys(output_columns(False)) | origin._asdict() | {"error": ""}
    rows = [blank | {"path": f"{number}.png", "score": score} for number, score in enumerate(scores)]
    write_output(path, rows, output_columns(False))
    return str(path)


def write_by_hand(path, *scores):
    path.write_text(
        "path,score\n" + "".join(f"{number}.png,{score}\n" for number, score in enumerate(scores))
    )
    return str(path)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(picture(64, 80, number)).save(folder / f"{number}.png")
    return folder


def refused(capsys, *words):
    """The message of a comparison that is not done."""
    assert main(["compare", *words]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1
    return printed.err


def test_the_origin_of_our_own_metric():
    origin = origin_here("ma_agiqa")
    assert origin.version.startswith(f"pyiqa-ma-agiqa/{__version__} pyiqa/0.")
    assert entry("ma_agiqa.safetensors")["sha256"].startswith(origin.weights)
    assert len(origin.weights) == 12
    assert origin_here("piqe").weights == ""
    assert origin_here("ma_agiqa_owl2").weights == ""  # the manifest has no SHA-256


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_row_of_every_format_has_it(tmp_path, images, suffix):
    (images / "broken.png").write_bytes(b"no image")
    out = tmp_path / f"scores{suffix}"
    assert main(["score", str(images), "--out", str(out), "--metric", "entropy", "--device", "cpu"]) == 1
    assert read_scores(str(out)).origins == [origin_here("entropy")]
    assert len(read_scores(str(out)).failures) == 1
    if suffix == ".parquet":
        assert parquet.read_table(out).column_names[-3:] == list(ORIGIN)


def test_it_survives_head_and_cat(tmp_path, capsys):
    first = write(tmp_path / "a.csv", scores=(1.0, 2.0, 3.0))
    lines = Path(first).read_text().splitlines(keepends=True)
    (tmp_path / "head.csv").write_text("".join(lines[:2]))
    assert read_scores(str(tmp_path / "head.csv")).origins == [OURS]
    together = tmp_path / "cat.csv"
    together.write_text("".join(lines * 2))
    read = read_scores(str(together))
    assert read.scores.tolist() == [1.0, 2.0, 3.0] * 2
    assert read.origins == [OURS]
    piqe = Path(write(tmp_path / "piqe.csv", PIQE)).read_text()
    together.write_text("".join(lines) + piqe)
    message = refused(capsys, str(together), first)
    assert "cat.csv: has scores of ma_agiqa, but also scores of piqe" in message


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    """Wherever it is, also where a score with fewer digits would be left."""
    path = tmp_path / "scores.csv"
    write(path, scores=(2.125, 2.875))
    whole = path.read_text().rstrip()
    check_same([("other", OURS), ("scores", *read_scores(str(path)).origins)])
    for end in range(whole.rindex("\n") + 2, len(whole)):
        path.write_text(whole[:end])
        with pytest.raises(InputError, match=str(path)):
            check_same([("other", OURS), *((str(path), origin) for origin in read_scores(str(path)).origins)])


def test_parts_with_and_without_it_are_refused(tmp_path, capsys):
    folder = tmp_path / "scores"
    folder.mkdir()
    by_hand = output_columns(False)
    for name in ORIGIN:
        del by_hand[name]
    blank = dict.fromkeys(by_hand) | {"path": "x.png", "score": 1.0, "error": ""}
    write_output(folder / "part-0.parquet", [blank], by_hand)
    write(folder / "part-1.parquet")
    assert "the row of x.png has no metric, while others have one" in refused(
        capsys, str(folder), str(folder)
    )


def test_scores_of_two_metrics_are_refused(tmp_path, capsys):
    a, b = write(tmp_path / "{a}.csv"), write(tmp_path / "b.jsonl", PIQE)
    message = refused(capsys, a, b)
    assert f"{a}: has scores of ma_agiqa, but {b} has scores of piqe" in message
    assert "score both sides with one metric" in message


def test_scores_of_other_weights_are_refused(tmp_path, capsys):
    a, b = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", OURS._replace(weights="000000000000"))
    message = refused(capsys, a, b)
    assert "the weights 1c4f368c92c5" in message and "the weights 000000000000" in message
    assert "score both sides with one version of pyiqa-ma-agiqa" in message
    assert "(none named)" in refused(capsys, a, write(tmp_path / "c.csv", OURS._replace(weights="")))


def test_a_folder_is_not_scored_in_vain(tmp_path, images, capsys, monkeypatch):
    from pyiqa_ma_agiqa.comparing import score_sets

    monkeypatch.setattr(score_sets, "_scorer", None)
    other = write(tmp_path / "other.csv", OURS._replace(weights="000000000000"))
    assert f"{other}: has scores of the weights 000000000000, but {images} has" in refused(
        capsys, str(images), other
    )


def test_another_version_is_told(tmp_path, capsys):
    a = write(tmp_path / "a.csv", OURS._replace(version="pyiqa-ma-agiqa/0.0.9 pyiqa/0.1.15"))
    b = write(tmp_path / "b.parquet")
    target = tmp_path / "c.json"
    assert main(["compare", a, b, "--json", str(target)]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "pyiqa-ma-agiqa/0.0.9 pyiqa/0.1.15, pyiqa-ma-agiqa/0.1.0 pyiqa/0.1.16" in note
    content = json.loads(target.read_text())
    assert content["notes"] == [note.removeprefix("note: ")]
    assert content["a"]["versions"] == ["pyiqa-ma-agiqa/0.0.9 pyiqa/0.1.15"]
    assert (content["metric"], content["weights"]) == ("ma_agiqa", OURS.weights)


def test_files_by_hand_are_told(tmp_path, capsys):
    by_hand, written = write_by_hand(tmp_path / "hand.csv", 1, 2), write(tmp_path / "b.csv", PIQE)
    assert main(["compare", by_hand, by_hand]) == 0
    text = capsys.readouterr().out
    assert text.startswith("metric unknown: higher counts as better\n")
    assert "hand.csv does not say its metric, higher counts as better" in text
    assert main(["compare", by_hand, written]) == 0
    text = capsys.readouterr().out
    assert text.startswith("piqe: lower is better\n")
    assert "hand.csv does not say its metric, taken to be piqe" in text


def test_the_lower_one_wins_where_lower_is_better(tmp_path, capsys):
    a, b = (
        write(tmp_path / "a.csv", PIQE, (30.0, 40.0, 50.0)),
        write(tmp_path / "b.csv", PIQE, (20.0, 35.0, 55.0)),
    )
    assert main(["compare", a, b, "--json", str(tmp_path / "c.json")]) == 0
    assert "win rate of B  0.667" in capsys.readouterr().out
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["lower_better"] is True
    assert content["difference"]["value"] == pytest.approx(-10 / 3)
    message = refused(capsys, a, b, "--fail-under", "30")
    assert "of piqe lower scores are better" in message


def test_directions():
    assert lower_is_better("ma_agiqa_owl2_4bit") is False
    assert lower_is_better("musiq") is False
    assert lower_is_better("piqe") is True
    assert lower_is_better("of_somebody") is None


def test_a_metric_that_pyiqa_has_not(tmp_path, images, capsys):
    path = write(tmp_path / "a.csv", Origin("of\x1bsomebody", "1", ""))
    assert main(["compare", path, path]) == 0
    text = capsys.readouterr().out
    assert text.startswith("of\\x1bsomebody: higher counts as better\n")
    assert "pyiqa has no metric of\\x1bsomebody" in text
    message = refused(capsys, path, str(images))
    assert f"{images}: cannot be scored with of\\x1bsomebody (pyiqa has no such metric" in message
    other = write(tmp_path / "b.csv", Origin("of\x1banother", "1", ""))
    assert "scores of of\\x1bsomebody, but" in refused(capsys, path, other)


def test_a_folder_is_scored_with_the_metric_of_the_file(tmp_path, images, capsys):
    out = str(tmp_path / "old.csv")
    assert main(["score", str(images), "--out", out, "--metric", "piqe"]) == 0
    for sides in ([out, str(images)], [str(images), out]):
        assert main(["compare", *sides, "--json", str(tmp_path / "c.json")]) == 0
        content = json.loads((tmp_path / "c.json").read_text())
        assert (content["metric"], content["pairs"]) == ("piqe", 2)
        assert content["difference"]["value"] == pytest.approx(0, abs=1e-3)
    assert "piqe: lower is better" in capsys.readouterr().out


def test_rows_name_what_made_them():
    (row,) = with_origin([{"path": "x", "error": "broken"}], "piqe")
    assert row == {"path": "x", "error": "broken", **origin_here("piqe")._asdict()}


def test_cells_as_text():
    assert _as_text(["NA", None, float("nan"), 2.5, 7, ""]).tolist() == ["NA", "", "", "2.5", "7", ""]
