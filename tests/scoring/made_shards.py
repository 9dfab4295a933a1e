"""Shards that tests make, and the rows that became of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from pyarrow import parquet

from pyiqa_ma_agiqa.command.main import main

ENTROPY = ["--metric", "entropy", "--device", "cpu"]
"""A metric of pyiqa that takes a millisecond."""


def image(number: int, form: str = "PNG") -> bytes:
    """Noise, another one for each number, as a small file."""
    levels = np.random.default_rng(number).integers(0, 2 + number % 254, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, form)
    return file.getvalue()


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar; mode "w:gz" for a compressed one, "zst" for one by zstd."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w" if mode == "zst" else mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = file.getvalue()
    if mode == "zst":
        import pyarrow

        content = pyarrow.compress(content, "zstd", asbytes=True)
    path.write_bytes(content)
    return path


def make_tars(folder: Path, shards: int, images: int = 4, start: int = 0) -> None:
    """`x-000.tar` and so on, as WebDataset has them: an image and its caption."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        members = {}
        for number in range(images):
            members[f"{shard:03}-{number:03}.png"] = image(start + shard * images + number)
            members[f"{shard:03}-{number:03}.json"] = json.dumps({"caption": number}).encode()
        make_tar(folder / f"x-{shard:03}.tar", members)


def score(*words: object, out: object, status: int = 0) -> None:
    assert main(["score", *map(str, words), *ENTROPY, "--out", str(out)]) == status


def rows(place: Path | str) -> list[dict]:
    """Of a file, or of a folder of parquets, by path."""
    return sorted(parquet.read_table(place).to_pylist(), key=lambda row: row["path"])


def about(file: Path) -> dict:
    """What the parquet of a shard says of itself."""
    return json.loads(parquet.read_metadata(file).metadata[b"pyiqa_ma_agiqa"])
