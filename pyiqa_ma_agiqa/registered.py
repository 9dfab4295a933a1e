"""What pyiqa's architecture registry resolves: the class, once pyiqa's reader is guarded for it."""

from pyiqa.models.inference_model import InferenceModel

from .arch import MAAGIQA
from .inference_guard import guard

__all__ = ["MAAGIQA"]

guard(InferenceModel, MAAGIQA)
