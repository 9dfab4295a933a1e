"""What pyiqa's architecture registry resolves: the classes, once pyiqa's reader is guarded for them."""

from pyiqa.models.inference_model import InferenceModel

from .arch import MAAGIQA
from .inference_guard import guard
from .published.arch import MAAGIQAOwl2

__all__ = ["MAAGIQA", "MAAGIQAOwl2"]

guard(InferenceModel, (MAAGIQA, MAAGIQAOwl2))
