"""How the ways to run the large model are compared, with stand-ins for it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.published_system import language_model, published_tables


def test_the_large_model_is_compared_with_four_and_with_two_passes():
    asked = []

    def model(images, ids):
        asked.append(tuple(ids.tolist()))
        return images.mean((1, 2, 3))[:, None] + len(ids)

    ids = [tuple(prompt) for prompt in language_model.prompts()]
    images = torch.rand(3, 3, 4, 4)
    four, two = (language_model.plain_passes(model, images, count) for count in (4, 2))
    assert asked == [*ids, *ids, *ids]
    assert four.shape == (3, 2, 1) and torch.equal(four, two)
    times = {
        "four passes": np.array([4.0, 8]),
        "two passes": np.array([2.0, 4]),
        "encode": np.array([1.0, 2]),
    }
    ratios = language_model.ratios(times)
    assert ratios["four passes"]["median"] == 4 and ratios["two passes"]["median"] == 2
    spread = {name: language_model.spread(values) for name, values in times.items()}
    cuda = {
        "images_per_second": spread,
        "time_over_ours": ratios,
        "peak_memory_mib": dict.fromkeys(times, 2048),
    }
    result = {
        "operations_at_full_size": {"four passes": 8e12, "two passes": 4e12, "encode": 2.5e12},
        "cpu_bfloat16": {
            "layers": 2,
            "parameters": 1e9,
            "seconds_an_image": spread,
            "time_over_ours": ratios,
        },
        **{"gpu": "a GPU", "cuda_bf16": {"by_batch": {"8": cuda}}},
    }
    text = published_tables.large_model(result)
    assert "| operations by count, at full size | 8.00 T | 4.00 T | 2.50 T | 3.20 | 1.60 |" in text
    assert "s an image | 6.0 | 3.0 | 1.5 | 4.00 (4.00–4.00) | 2.00 (2.00–2.00) |" in text
    on_gpu = published_tables.on_gpu(result)
    assert "| bf16, 8 | 6 | 3 | 1.5 | 4.00 (4.00–4.00) | 2.00 (2.00–2.00) | 2.0 |" in on_gpu
