"""What is asked of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .inputs.limits import Limits


@dataclass(frozen=True)
class Request:
    """Images to score, and how; the fields are the options of ``pyiqa-ma-agiqa score``.

    Attributes:
        inputs: image files, folders, globs, tables and tars, as paths or URLs.
        out: .csv, .jsonl or .parquet, a folder of parquets, or its URL as text; None for rows that are
            not kept.
        metric: name of a no-reference metric of pyiqa.
        device: "cpu", "cuda", ...; None for a GPU where there is one.
        batch_size: images that pass the network at once; None for what suits the device.
        workers: threads that decode; None for as many as there are cores, at most 8.
        shares: whether the shares of the experts are wanted.
        interval: whether the prediction interval and the familiarity are wanted.
        column: of the tables.
        limits: on what is decoded.
        restart: begin again, whatever an earlier run has done or written.
        retry_errors: score again what has an error, and only that.
        engine: "local" or "ray".
        actors: with Ray, how many copies of the model; None for as many as there is room for.
    """

    inputs: list[str]
    out: Path | str | None = None
    metric: str = "ma_agiqa"
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    shares: bool = False
    interval: bool = False
    column: str = "path"
    limits: Limits = field(default_factory=Limits)
    restart: bool = False
    retry_errors: bool = False
    engine: str = "local"
    actors: int | None = None
