"""What do the weights of the published system take at full size where there is a GPU?

    python -m benchmarks.published_system.published_full_size_on_gpu --folder /somewhere/with/50/GB

`published_full_size.py` with a GPU, which pyiqa's command then takes. Peak memory is the machine's, not the
GPU's: that stands in language_model_on_gpu.json. Writes published_full_size_on_gpu.json beside itself.
"""

from __future__ import annotations

from benchmarks.common.machine import need_gpu
from benchmarks.published_system.published_full_size import main

if __name__ == "__main__":
    need_gpu("published_system.published_full_size")
    main(on_gpu=True)
