"""`score` from end to end: pyiqa's scores to the last bit, every image a row, names that survive."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.explaining.explanation import explain
from pyiqa_ma_agiqa.names import unescape
from pyiqa_ma_agiqa.scoring.columns import AGAINST_TYPICAL, COLUMNS, INTERVAL, MIXTURE, ORIGIN, SHARES
from pyiqa_ma_agiqa.scoring.inputs.items import Item
from pyiqa_ma_agiqa.scoring.inputs.limits import Limits
from pyiqa_ma_agiqa.scoring.origins import origin_here
from pyiqa_ma_agiqa.scoring.rows import output
from pyiqa_ma_agiqa.scoring.scorer import Job, Scorer, score_items

from ..command_runs import make_images, run_measured
from ..images import picture

SIZES = [(48, 48), (64, 96), (80, 80), (700, 500)]
"""Sizes of pictures; the two small squares are enlarged to views of one size."""
ENTROPY = ["--metric", "entropy", "--device", "cpu"]
"""A metric of pyiqa that takes a millisecond."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(picture(height, width, number)).save(folder / f"{number}.png")
    Image.fromarray(picture(64, 64)).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(32, 64)).save(folder / "rotated.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def metric(short_towers):
    import pyiqa

    return pyiqa.create_metric("ma_agiqa", device="cpu")


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_are_exactly_those_of_pyiqa(pictures, metric, tmp_path, capsys):
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:2000])
    out = tmp_path / "scores.parquet"
    inputs = [str(pictures), "missing.jpg"]
    assert main(["score", *inputs, "--out", str(out), "--device", "cpu", "--shares"]) == 1
    table = parquet.read_table(out)
    assert table.column_names == [*COLUMNS, *SHARES, *ORIGIN]
    rows = table.to_pylist()
    assert len(rows) == len(SIZES) + 4
    failed = [row for row in rows if row["error"]]
    assert [os.path.basename(row["path"]) for row in failed] == ["broken.png", "missing.jpg"]
    for row in rows:
        if row["error"]:
            assert row["score"] is None and row["share_quality"] is None
            continue
        parts = metric(row["path"], return_parts=True)
        assert row["score"] == parts["score"].item()
        assert [row[name] for name in MIXTURE] == [*parts["shares"][0].tolist(), *parts["gate"][0].tolist()]
        against = [row[name] for name in AGAINST_TYPICAL]
        assert sum(against) == pytest.approx(row["score"], abs=1e-5)
        if row["path"].endswith("0.png"):
            explained = explain(row["path"], metric)
            assert against == [explained.typical, *explained.differences.values()]
        with Image.open(row["path"]) as image:
            assert (row["width"], row["height"]) == image.size
    (pictures / "broken.png").unlink()
    said = capsys.readouterr().out
    best = max((row for row in rows if not row["error"]), key=lambda row: row["score"])
    assert f"best     {best['score']:.4f}  {best['path']}" in said
    assert "failed   2" in said and "missing.jpg: no such file" in said


def score_all(paths, batch_size):
    job = Job("ma_agiqa", "cpu", batch_size, True, Limits(10**7, 10**7), workers=2)
    scorer = Scorer(job)
    sizes = []
    score = scorer.score
    scorer.score = lambda batch: sizes.append(len(batch)) or score(batch)
    items = ((number, Item(str(path))) for number, path in enumerate(paths))
    return dict(score_items(items, scorer, job)), sizes


@pytest.mark.parametrize("batch_size", ["1", "2"])
def test_intervals_are_those_of_the_metric(pictures, metric, tmp_path, batch_size):
    out, image = tmp_path / "scores.jsonl", str(pictures / "0.png")
    words = ["score", image, "missing.png", "--out", str(out), "--device", "cpu", "--batch-size", batch_size]
    assert main([*words, "--interval"]) == 1
    row, missing = map(json.loads, out.read_text().splitlines())
    assert list(row) == list(missing) == [*COLUMNS, *INTERVAL, *ORIGIN]
    parts = metric(image, return_parts=True)
    found = [*parts["score"][0].tolist(), *parts["interval"][0].tolist(), *parts["familiarity"][0].tolist()]
    assert [row[name] for name in ("score", *INTERVAL)] == found
    assert row["low"] < row["score"] < row["high"] and 0 <= row["familiarity"] <= 1
    assert [missing[name] for name in INTERVAL] == [None] * 3
    # Without the option nothing changes in the rows.
    assert main([*words, "--restart"]) == 1
    assert json.loads(out.read_text().splitlines()[0]) == {
        name: value for name, value in row.items() if name not in INTERVAL
    }


def test_mixed_sizes_fill_batches(pictures, metric):
    paths = [pictures / f"{number}.png" for number in (0, 1, 2, 0, 1, 2)]
    rows, sizes = score_all(paths, 3)
    assert sorted(sizes) == [1, 2, 3]
    assert sorted(rows) == list(range(len(paths)))
    for number in range(3):
        parts = {
            name: value[0].tolist() for name, value in metric(str(paths[number]), return_parts=True).items()
        }
        expected = [*parts["score"], *parts["shares"], *parts["gate"]]
        for row in (rows[number], rows[number + 3]):
            assert [row[name] for name in ("score", *MIXTURE)] == expected


def test_batches_of_a_metric_of_pyiqa(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 20)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 17)).save("images/00007b.png")
    assert main(["score", "images", *ENTROPY, "--out", "1.csv"]) == 0
    assert main(["score", "images", *ENTROPY, "--out", "8.csv", "--batch-size", "8"]) == 0
    for one, other in zip(rows_of("1.csv"), rows_of("8.csv"), strict=True):
        assert one["path"] == other["path"]
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1e-5)


def test_a_metric_that_fails_on_an_image_is_a_row(tmp_path, monkeypatch):
    """In a batch too, only the image at fault."""
    make_images(tmp_path / "images", 6)
    monkeypatch.chdir(tmp_path)
    job = Job("entropy", "cpu", 3, False, Limits(10**6, 10**7), workers=1)
    scorer = Scorer(job)
    whole = scorer.metric

    def fragile(pixels):
        if (pixels.mean((1, 2, 3)) < 0.003).any():
            raise RuntimeError("too dark\nfor this")
        return whole(pixels) if len(pixels) > 1 else whole(pixels) * float("nan")

    scorer.metric = fragile
    items = [(number, Item(f"images/{number:05}.png")) for number in range(6)]
    rows = dict(score_items(items, scorer, job))
    assert rows[0]["error"] == "the metric failed: too dark" and rows[0]["width"] == 16
    assert rows[1]["error"] == "the metric gave nan" and rows[1]["score"] is None
    assert all(rows[number]["score"] is not None for number in (3, 4, 5))


NAMES = [
    "two\nlines",
    'say "hi", ok',
    "<b>&amp;",
    os.fsdecode(b"caf\xe9"),
    "größe",
    "=1+1",
    " a",
    "\r",
]


def test_names_survive_in_every_format(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkdir("images")
    for name in NAMES:
        Image.new("RGB", (20, 20)).save(os.path.join("images", f"{name}.png"))
    expected = sorted((f"images/{name}.png" for name in NAMES), key=os.fsencode)
    for suffix in ("csv", "jsonl", "parquet"):
        assert main(["score", "images", *ENTROPY, "--out", f"x.{suffix}"]) == 0
    assert [unescape(row["path"]) for row in rows_of("x.csv")] == expected
    with open("x.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert [unescape(row["path"]) for row in rows] == expected
    assert [unescape(path) for path in parquet.read_table("x.parquet")["path"].to_pylist()] == expected
    assert len(capsys.readouterr().out.splitlines()) == 3 * (4 + 2 * 4)
    # What one run wrote is a list for another.
    assert main(["score", "x.csv", *ENTROPY, "--out", "y.csv"]) == 0
    assert rows_of("y.csv") == rows_of("x.csv")


def test_formats_agree(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 5)
    monkeypatch.chdir(tmp_path)
    for suffix in ("csv", "jsonl", "parquet"):
        assert main(["score", "images", "none.png", *ENTROPY, "--out", f"x.{suffix}"]) == 1
    with open("x.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert parquet.read_table("x.parquet").to_pylist() == rows
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert rows_of("x.csv") == as_text
    assert rows[-1] == {
        "path": "none.png",
        "score": None,
        "error": "no such file; check the path",
        "width": None,
        "height": None,
        **origin_here("entropy")._asdict(),
    }


def test_bytes_in_a_parquet_and_members_of_a_tar(tmp_path, monkeypatch):
    import tarfile

    make_images(tmp_path / "images", 8)
    monkeypatch.chdir(tmp_path)
    files = sorted((tmp_path / "images").iterdir())
    parquet.write_table(
        pa.table({"image": [file.read_bytes() for file in files]}), "x.parquet", row_group_size=3
    )
    with tarfile.open("x.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    assert main(["score", "images", "x.tar", *ENTROPY, "--out", "x.csv"]) == 0
    assert main(["score", "x.parquet", *ENTROPY, "--column", "image", "--out", "y.csv"]) == 0
    scores = [row["score"] for row in rows_of("x.csv")]
    assert scores[:8] == scores[8:] == [row["score"] for row in rows_of("y.csv")]


def test_a_folder_of_parquets(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 25)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "PART_ROWS", 10)
    assert main(["score", "images", *ENTROPY, "--out", "whole.parquet"]) == 0
    assert main(["score", "images", *ENTROPY, "--out", "parts"]) == 0
    assert sorted(os.listdir("parts")) == [f"part-0000{number}.parquet" for number in range(3)]
    assert parquet.read_table("parts").equals(parquet.read_table("whole.parquet"))
    assert main(["score", "images", *ENTROPY, "--out", "parts"]) == 2
    assert main(["score", "images/0000*.png", *ENTROPY, "--out", "parts", "--restart"]) == 0
    assert os.listdir("parts") == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images", "--out", "x.xlsx"], "ends in .csv, .jsonl or .parquet"),
        (["images", "--out", "images", "--restart"], "is a folder of other things"),
        (["images", "--out", "none/x.csv"], "no folder none"),
        (["images", "--out", "x.csv", "--metric", "nonsense"], "no such metric"),
        (["images", "--out", "x.csv", "--metric", "psnr"], "needs a reference"),
        (["images", "--out", "x.csv", "--metric", "fid"], "scores sets of images"),
        (["images", "--out", "x.csv", "--metric", "piqe", "--shares"], "piqe has no experts"),
        (
            ["images", "--out", "x.csv", "--metric", "ma_agiqa_owl2", "--interval"],
            "--interval: ma_agiqa_owl2 has no prediction interval; give ma_agiqa, or leave it out",
        ),
        (["images", "--out", "x.csv", "--metric", "piqe", "--device", "nonsense"], "--device nonsense"),
        (["images/*.gif", "--out", "x.csv", "--metric", "piqe"], "matches nothing"),
        (["empty", "--out", "x.csv", "--metric", "piqe"], "no images there"),
        (["images", "--out", "exists.csv", "--metric", "piqe"], "exists; give another name, or --restart"),
        (["images", "--out", "x.csv", "--batch-size", "0"], "0 is not a whole number above 0"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, words, message):
    make_images(tmp_path / "images", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "exists.csv").write_text("mine")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["score", *words])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and message in capsys.readouterr().err
    assert (tmp_path / "exists.csv").read_text() == "mine"


def test_a_wrong_option_can_be_corrected(tmp_path, monkeypatch):
    """A journal without rows holds nobody to its settings."""
    make_images(tmp_path / "images", 2)
    monkeypatch.chdir(tmp_path)
    assert main(["score", "none/*.png", *ENTROPY, "--out", "x.csv"]) == 2
    assert main(["score", "images", *ENTROPY, "--out", "x.csv"]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    make_images(tmp_path / "images", 2500)
    few = run_measured(tmp_path, "score", "images/000*.png", *ENTROPY, "--out", "few.csv")
    many = run_measured(tmp_path, "score", "images", *ENTROPY, "--out", "many.csv")
    assert few[0] == many[0] == 0
    assert len(rows_of(tmp_path / "many.csv")) == 2500
    assert many[1] - few[1] < 20


def test_help_comes_at_once_with_an_example():
    for command in ("", "score"):
        code = (
            "import sys; from pyiqa_ma_agiqa.command.main import main\n"
            f"try: main({[*command.split(), '--help']})\n"
            "finally: assert not {'torch', 'pyiqa', 'pandas', 'pyarrow'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {' '.join(['pyiqa-ma-agiqa', *command.split()])} [-h]")
        assert "  pyiqa-ma-agiqa score images/ --out scores.csv\n" in done.stdout


def test_modules_with_their_own_parsers_take_the_rest(capsys):
    assert main(["weights", "list"]) == 0
    assert "ma_agiqa.safetensors" in capsys.readouterr().out
    assert main(["train", "--out", "x"]) == 2
    assert "give --config" in capsys.readouterr().err


def test_the_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "pyiqa_ma_agiqa.command", "score"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "INPUT" in done.stderr
