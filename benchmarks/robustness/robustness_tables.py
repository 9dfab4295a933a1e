"""The tables of what `robustness.py` found: rank correlation of level and score, scores by size and shape."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NoResult, markdown, source


def robustness(result: dict[str, Any]) -> str:
    """On photographs."""
    return _part("photograph", result, result)


def robustness_of_generated(result: dict[str, Any]) -> str:
    """On generated images.

    Raises:
        NoResult: AGIQA-3K was not there when the result was made.
    """
    if "generated" not in result:
        raise NoResult("benchmarks.robustness.robustness")
    return _part("generated image", result["generated"], result)


def _part(what: str, part: dict[str, Any], result: dict[str, Any]) -> str:
    by_size = plain_scores("score at size, times", part["score_by_scale"])
    by_shape = plain_scores("score of crop, width / height", part["score_by_aspect"])
    return "\n\n".join([steadiness(what, part, result["steady_means"]), by_size, by_shape, source(result)])


def steadiness(what: str, part: dict[str, Any], meaning: str) -> str:
    """Rank correlation of level and score for every image (rows) and degradation (columns)."""
    kinds = list(part["by_kind"])
    rows = []
    for image in dict.fromkeys(pair["photo"] for pair in part["by_pair"]):
        of_image = {p["kind"]: p["rank_correlation"] for p in part["by_pair"] if p["photo"] == image}
        rows.append([image, *(f"{of_image[kind]:+.3f}" for kind in kinds)])
    falls = []
    for kind in kinds:
        scores = [pair["scores"] for pair in part["by_pair"] if pair["kind"] == kind]
        falls.append(sum(levels[0] - levels[-1] for levels in scores) / len(scores))
    rows.append(["*mean fall of the score, first to last level*", *(f"{fall:.2f}" for fall in falls)])
    counted = f"{part['steady_pairs']} of {part['pairs']} pairs have a {meaning}."
    return f"{markdown([what, *kinds], rows)}\n\n{counted}"


def plain_scores(label: str, scores: dict[str, dict[str, float]]) -> str:
    """Scores by image (rows) and setting (columns)."""
    settings = next(iter(scores.values()))
    rows = [[photo, *(f"{value:.2f}" for value in entries.values())] for photo, entries in scores.items()]
    return markdown([label, *settings], rows)
