"""Figures published in Wang et al., ACM MM 2024 (MA-AGIQA), and for M3-AGIQA; none was measured here.

The learned methods were trained there on the train part of the data set; pyiqa's weights of the
same names were not, so the two do not belong to the same model.
"""

from __future__ import annotations

AGIQA3K: dict[str, tuple[str, str]] = {
    "MA-AGIQA": (".8939", ".9273"),
    "MANIQA": (".8618", ".9115"),
    "HyperIQA": (".8509", ".9049"),
    "StairIQA": (".8343", ".8933"),
    "DBCNN": (".8263", ".8900"),
    "MUSIQ": (".8261", ".8657"),
    "CLIPIQA+": (".6933", ".7493"),
    "Q-Align": (".6728", ".6910"),
    "CLIPIQA": (".6524", ".6968"),
    "ILNIQE": (".6097", ".6551"),
    "NIQE": (".5236", ".5668"),
    "BRISQUE": (".4726", ".5612"),
}
"""SRCC and PLCC on AGIQA-3K, on the split `official`, as the paper's table prints them."""
COMMENTED = (
    "The paper prints no KRCC and RMSE for AGIQA-3K; a comment in the authors' code has KRCC .7211 and RMSE "
    ".3756 for MA-AGIQA."
)

M3: dict[str, tuple[str, str]] = {
    "M3-AGIQA": (".9125", ".938"),
    "IPCE": (".897", ".9245"),
    "MA-AGIQA": (".871", ".914"),
}
"""SRCC and PLCC on AGIQA-3K, on the split `m3`, read off a plot in the paper of M3-AGIQA."""

METHOD_OF = {
    "ma_agiqa_owl2": "MA-AGIQA",
    "maniqa": "MANIQA",
    "hyperiqa": "HyperIQA",
    "dbcnn": "DBCNN",
    "musiq": "MUSIQ",
    "clipiqa+": "CLIPIQA+",
    "qalign": "Q-Align",
    "clipiqa": "CLIPIQA",
    "ilniqe": "ILNIQE",
    "niqe": "NIQE",
    "brisque": "BRISQUE",
    "pypi-niqe": "NIQE",
    "pypi-brisque": "BRISQUE",
}
"""Metric to the method of that name in the paper."""


def figures(method: str, of_methods: dict[str, tuple[str, str]] = AGIQA3K) -> str:
    """Published figures of a method on AGIQA-3K; empty for one that is not listed."""
    return " / ".join(of_methods.get(method, ()))
