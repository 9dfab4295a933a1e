"""What pyiqa's architecture registry resolves: the classes."""

from ..compact.arch import MAAGIQA
from ..published.arch import MAAGIQAOwl2

__all__ = ["MAAGIQA", "MAAGIQAOwl2"]
