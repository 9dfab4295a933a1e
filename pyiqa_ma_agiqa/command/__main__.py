"""``python -m pyiqa_ma_agiqa.command``: the console command without its script."""

import sys

from .main import main

sys.exit(main())
