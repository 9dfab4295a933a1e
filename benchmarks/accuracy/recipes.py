"""One line of options of `accuracy.py` for each rated data set; the README's table is made of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """How to read a data set.

    Attributes:
        title: its name.
        options: of accuracy.py; DATA is the folder it was unpacked to.
        checked: which of the file and column names were seen where, and which were not.
    """

    title: str
    options: tuple[str, ...]
    checked: str


RECIPES = {
    "agiqa3k": Recipe(
        "AGIQA-3K",
        ("--data", "DATA/images", "--mos", "DATA/data.csv", "--split", "seed20", "--part", "test"),
        "Used here. `seed20` is the split of the paper, `official` in the tables.",
    ),
    "aigcqa20k": Recipe(
        "AIGCQA-20K (AIGIQA-20K)",
        ("--data", "DATA/train", "--mos", "DATA/info_train.csv", "--split", "seed20", "--part", "test"),
        "`info_train.csv` with columns name, prompt, mos and names like `DALLE2_0000.png` seen in the "
        "repository of MA-AGIQA, whose configuration splits that file by seed 20; the folder `train/` in "
        "the code of another entrant. Not verified: that the published figures are of this file alone.",
    ),
    "aigciqa2023": Recipe(
        "AIGCIQA2023",
        ("--data", "DATA/Image/allimg", "--mos", "DATA/AIGCIQA2023.csv", "--mos-column", "quality_mos"),
        "`AIGCIQA2023.csv` with columns name (`0.png`) and quality_mos seen in the authors' repository, the "
        "folder in the code of three users. The names tell no generator, and no split is published.",
    ),
    "pku_aigiqa4k": Recipe(
        "PKU-AIGIQA-4K",
        (
            *("--data", "DATA/All", "--mos", "DATA/annotation.xlsx"),
            *("--name-column", "Generated_image", "--mos-column", "MOS_q"),
            *("--generator-pattern", "([A-Za-z]+)_", "--split", "every4th", "--part", "test"),
        ),
        "Folder, file, Generated_image and the split (every fourth row is test) seen in the authors' code; "
        "MOS_q (quality) and names like `SD_1000_00.jpg` in a copy of the table. Needs openpyxl.",
    ),
    "koniq10k": Recipe(
        "KonIQ-10k",
        (
            *("--data", "DATA/1024x768", "--mos", "DATA/koniq10k_distributions_sets.csv"),
            *("--split", "DATA/koniq10k_distributions_sets.csv", "--split-column", "set", "--part", "test"),
        ),
        "Folder, file and the columns image_name, MOS and set (training, validation, test) seen in the "
        "code of several users. Photographs: no generators.",
    ),
    "spaq": Recipe(
        "SPAQ",
        (
            *("--data", "DATA/TestImage", "--mos", "DATA/Annotations/MOS and Image attribute scores.xlsx"),
            *("--name-column", "Image name", "--mos-column", "MOS"),
        ),
        "Folder, file and columns seen in the code of several users. No split is published. Photographs: "
        "no generators. Needs openpyxl.",
    ),
}


def filled(recipe: Recipe, data: Path) -> list[str]:
    """The options for a data set in a folder."""
    return [option.replace("DATA", str(data)) for option in recipe.options]
