"""How well does a metric agree with people on AGIQA-3K?

    python benchmarks/accuracy.py --metric ma_agiqa --split official
    python benchmarks/accuracy.py --metric ma_agiqa --split prompt_disjoint --weights FILE

Writes results/accuracy_METRIC_SPLIT.json and results/scores_METRIC_SPLIT.csv.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from machine import RESULTS, circumstances, write_json
from scoring import create, oriented, weights_sha256
from statistics_of_scores import generator, generator_mean, probability_of_better_srcc, report
from tqdm import tqdm

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.experts import EXPERTS

DEFAULT_DATA = Path(os.environ.get("AGIQA3K", "../shared/agiqa3k"))


def score(metric: torch.nn.Module, path: Path) -> dict[str, Any]:
    """Name and score of an image file, higher is better; for ma_agiqa with gate and shares."""
    if not isinstance(metric.net, MAAGIQA):
        return {"name": path.name, "score": oriented(metric, str(path))}
    parts = {name: value[0].tolist() for name, value in metric(str(path), return_parts=True).items()}
    return (
        {"name": path.name, "score": parts["score"][0]}
        | {f"gate {name}": gate for name, gate in zip(EXPERTS, parts["gate"], strict=True)}
        | {f"share {name}": share for name, share in zip(EXPERTS, parts["shares"], strict=True)}
    )


def read_table(data: Path) -> pd.DataFrame:
    """Name, MOS, generator and splits of the images of AGIQA-3K."""
    table = pd.read_csv(data / "data.csv")[["name", "mos_quality"]].rename(columns={"mos_quality": "mos"})
    table["generator"] = table["name"].map(generator)
    return table.merge(pd.read_csv(data / "splits.csv"), on="name")


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--metric", default="ma_agiqa", help="a no-reference metric of pyiqa")
    parser.add_argument("--split", default="official", choices=["official", "prompt_disjoint"])
    parser.add_argument("--part", default="test", choices=["val", "test"])
    parser.add_argument("--weights", type=Path, help="weights of another training run")
    parser.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    table = read_table(options.data)
    train = table[table[options.split] == "train"]
    part = table[table[options.split] == options.part]
    metric = create(options.metric, options.weights)
    rows = [score(metric, options.data / "images" / name) for name in tqdm(part["name"], options.metric)]
    scores = part[["name", "mos", "generator"]].merge(pd.DataFrame(rows), on="name")
    if not scores["score"].notna().all():
        raise SystemExit(f"no finite score for {', '.join(scores['name'][scores['score'].isna()])}")

    mos, generators = scores["mos"].to_numpy(), scores["generator"].to_numpy(str)
    baseline = generator_mean(train["mos"].to_numpy(), train["generator"].to_numpy(str), generators)
    ours = scores["score"].to_numpy()
    result = {
        "metric": options.metric,
        "split": options.split,
        "part": options.part,
        "images": len(scores),
        "agreement": report(ours, mos, generators, options.repeats),
        "generator_mean_baseline": report(baseline, mos, generators, options.repeats),
        "probability_of_better_srcc_than_baseline": probability_of_better_srcc(
            ours, baseline, mos, options.repeats
        ),
        "bootstrap_repeats": options.repeats,
        **weights_sha256(metric, options.weights),
        **circumstances(),
    }
    stem = f"{options.metric}_{options.split}" + ("" if options.part == "test" else f"_{options.part}")
    write_json(options.out / f"accuracy_{stem}.json", result)
    scores.round(5).to_csv(options.out / f"scores_{stem}.csv", index=False)
    print(json.dumps(result["agreement"], indent=1))


if __name__ == "__main__":
    main()
