"""Scores that need not be computed twice: one file a metric and version, one line an image."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

DEFAULT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pyiqa-ma-agiqa" / "scores"


def content_hash(path: Path) -> str:
    """SHA-256 of a file: an image keeps its scores when it is renamed and loses them when it changes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ScoreCache:
    """Scores of one metric in one version by the hash of the image. Each is written as it comes,
    so an interrupted run keeps its work.

    Args:
        folder: made when the first score is added.
        metric: name of the metric.
        version: whatever the score depends on besides the image: code, weights, device.
    """

    def __init__(self, folder: Path, metric: str, version: str) -> None:
        key = hashlib.sha256(f"{metric}\n{version}".encode()).hexdigest()[:16]
        plain = re.sub(r"[^\w+.-]", "_", metric)
        self.path = folder / f"{plain}-{key}.jsonl"
        self.scores: dict[str, float] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                self.scores[entry["image"]] = float(entry["score"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off

    def add(self, image: str, score: float) -> None:
        """Keep the score of the image with this hash."""
        self.scores[image] = score
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"image": image, "score": score}) + "\n")
