"""AGIQA-3K as released, read for pyiqa's data loaders."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
from pyiqa.data.general_nr_dataset import GeneralNRDataset

from ..errors import InputError
from .agiqa3k import shuffled_split

COLUMNS = ("name", "mos_quality")


class AGIQA3KDataset(GeneralNRDataset):
    """Images of AGIQA-3K with their MOS of quality, about 0 to 5, higher is better.

    The options are those of pyiqa's data sets; ``dataroot_target`` is the folder of the images and
    ``meta_info_file`` the data.csv of the release. ``split_index="official_split"`` with a ``phase``
    takes that part of the split of MA-AGIQA, which shares prompts between its parts; without
    ``split_index`` there are all images.

    Raises:
        InputError: the table is missing or lacks a column.

    Reference: Li et al., *AGIQA-3K: An Open Database for AI-Generated Image Quality Assessment*,
    IEEE TCSVT 2023; the split: Wang et al., ACM MM 2024, section 4.1.
    """

    def init_path_mos(self, opt: dict[str, Any]) -> None:
        """Read the table; called by the base class."""
        file = opt["meta_info_file"]
        if not os.path.isfile(file):
            raise InputError(f"{file}: no such file; give the data.csv of AGIQA-3K as meta_info_file")
        table = pd.read_csv(file)
        for column in COLUMNS:
            if column not in table:
                raise InputError(f"{file}: no column {column!r}; give the data.csv of AGIQA-3K")
        self.meta_info = table.assign(official_split=shuffled_split(len(table)))
        self.paths_mos = [
            [os.path.join(opt["dataroot_target"], name), float(mos)]
            for name, mos in zip(table["name"], table["mos_quality"], strict=True)
        ]
