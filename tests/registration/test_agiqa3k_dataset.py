"""AGIQA-3K as a data set of pyiqa, on a small folder of its form."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pandas as pd
import pytest

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.registration import agiqa3k

from ..rated import rated_folder


@pytest.fixture
def registered(monkeypatch):
    """pyiqa with the data set; its functions are put back after the test."""
    import pyiqa
    import pyiqa.api_helpers
    import pyiqa.data.dataset_api
    import pyiqa.utils.registry

    for module in (pyiqa.api_helpers, pyiqa, pyiqa.data.dataset_api):
        monkeypatch.setattr(module, "get_dataset_info", module.get_dataset_info)
    agiqa3k.register(pyiqa.utils.registry)
    agiqa3k.list_datasets(pyiqa.api_helpers)
    return pyiqa


def test_the_split_is_the_shuffle_of_the_paper():
    parts = agiqa3k.shuffled_split(2982)  # AGIQA-3K; the parts are those of its column `official`
    assert [parts.count(name) for name in ("train", "val", "test")] == [2087, 298, 597]
    assert parts[:8] == ["train", "test", "train", "test", "train", "train", "test", "train"]


def test_pyiqa_loads_it(registered, tmp_path):
    from pyiqa.data.dataset_api import load_dataset

    folder = rated_folder(tmp_path / "agiqa3k", 20)
    ratings = pd.read_csv(folder / "data.csv")
    everything = load_dataset("agiqa3k", data_root=str(tmp_path), split_index=None)
    assert [everything[row]["mos_label"].item() for row in range(20)] == pytest.approx(
        ratings["mos_quality"].tolist()
    )
    test = load_dataset("agiqa3k", data_root=str(tmp_path))
    parts = agiqa3k.shuffled_split(20)
    expected = [name for name, part in zip(ratings["name"], parts, strict=True) if part == "test"]
    assert [test[row]["img_path"].rsplit("/", 1)[1] for row in range(len(test))] == expected
    assert test[0]["img"].shape == (3, 64, 64)


def test_pyiqa_lists_it_beside_its_own(registered):
    assert registered.get_dataset_info("agiqa3k")["type"] == agiqa3k.DATASET
    assert {"agiqa3k", "koniq10k"} <= set(registered.get_dataset_info())
    registered.get_dataset_info("agiqa3k")["phase"] = "changed"
    assert registered.get_dataset_info("agiqa3k")["phase"] == "test"
    with pytest.raises(AssertionError, match="not implemented"):
        registered.get_dataset_info("agiqa30k")


def test_adding_twice_changes_nothing(registered):
    before = registered.api_helpers.get_dataset_info
    agiqa3k.list_datasets(registered.api_helpers)
    agiqa3k.register(registered.utils.registry)
    assert registered.api_helpers.get_dataset_info is before


def test_a_data_set_of_that_name_in_pyiqa_stays_its_own():
    module = ModuleType("pyiqa.elsewhere")
    known = {"agiqa3k": {"type": "Theirs"}}
    module.get_dataset_info = lambda name=None: known if name is None else known[name]  # type: ignore[attr-defined]
    agiqa3k.list_datasets(module)
    assert module.get_dataset_info("agiqa3k") == {"type": "Theirs"}


def test_a_table_that_is_not_of_agiqa3k_is_named(registered, tmp_path):
    from pyiqa.data import build_dataset

    options = agiqa3k.DATASETS["agiqa3k"] | {"dataroot_target": str(tmp_path)}
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        build_dataset(options | {"meta_info_file": str(tmp_path / "none.csv")})
    (tmp_path / "data.csv").write_text("name,mos\n")
    with pytest.raises(InputError, match="no column 'mos_quality'"):
        build_dataset(options | {"meta_info_file": str(tmp_path / "data.csv")})


def test_the_entry_is_light():
    code = (
        "import sys, pyiqa_ma_agiqa.registration.agiqa3k; "
        "print({'torch', 'pyiqa', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
