"""What `config.json` of a published mPLUG-Owl2 says of the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from transformers import LlamaConfig

from ..errors import WeightsError

Part = TypeVar("Part", "VisionSettings", "AbstractorSettings")


@dataclass(frozen=True)
class VisionSettings:
    """The vision tower: `visual_config.visual_model`."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    supported: ClassVar[Mapping[str, tuple]] = {
        "hidden_act": ("quick_gelu",),
        "use_cls_token": (True,),
        "use_post_layernorm": (True,),
        "num_channels": (3,),
    }

    @property
    def tokens(self) -> int:
        """Tokens of an image: its patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class AbstractorSettings:
    """The visual abstractor: `visual_config.visual_abstractor`."""

    hidden_size: int = 1024
    encoder_hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_learnable_queries: int = 64
    grid_size: int = 32
    layer_norm_eps: float = 1e-6

    supported: ClassVar[Mapping[str, tuple]] = {"use_cls_token": (True,), "add_v2t_pos_emb": (False,)}


class MPlugOwl2Config(LlamaConfig):
    """Configuration of mPLUG-Owl2: that of its LLaMA language model, and `visual_config`.

    Args:
        visual_config: dict with the dicts `visual_model` and `visual_abstractor`; what is not given
            is as in the published 7B model. Keys that only matter in training are kept, unused.

    Raises:
        WeightsError: a setting that this implementation has no code for; the message names it.
    """

    model_type = "mplug_owl2"

    visual_config: dict[str, Any] | None = None

    @property
    def visual_model(self) -> VisionSettings:
        return _part(VisionSettings, "visual_model", self.visual_config)

    @property
    def visual_abstractor(self) -> AbstractorSettings:
        return _part(AbstractorSettings, "visual_abstractor", self.visual_config)

    def check(self) -> None:
        """See that the parts fit together and are all supported.

        Raises:
            WeightsError: they do not; the message names the setting.
        """
        vision, abstractor = self.visual_model, self.visual_abstractor
        problems = []
        for what, heads, width in (
            ("visual_model", vision.num_attention_heads, vision.hidden_size),
            ("visual_abstractor", abstractor.num_attention_heads, abstractor.hidden_size),
        ):
            if width % heads:
                problems.append(f"{what}: hidden_size {width} is not a multiple of {heads} attention heads")
        widths = {vision.hidden_size, abstractor.encoder_hidden_size, abstractor.hidden_size}
        if len(widths) > 1:
            problems.append(
                f"visual_abstractor.hidden_size {abstractor.hidden_size} and encoder_hidden_size "
                f"{abstractor.encoder_hidden_size} are not visual_model.hidden_size {vision.hidden_size}"
            )
        if abstractor.grid_size**2 + 1 != vision.tokens:
            problems.append(
                f"visual_abstractor.grid_size {abstractor.grid_size} does not fit image_size "
                f"{vision.image_size} in patches of {vision.patch_size}"
            )
        if problems:
            raise WeightsError(f"config of mPLUG-Owl2: {'; '.join(problems)}; use a published config.json")


def _part(kind: type[Part], name: str, visual_config: Mapping[str, Any] | None) -> Part:
    given = (visual_config or {}).get(name) or {}
    for key, values in kind.supported.items():
        if given.get(key, values[0]) not in values:
            raise WeightsError(
                f"config of mPLUG-Owl2: visual_config.{name}.{key} is {given[key]!r}, "
                f"but only {values[0]!r} is supported"
            )
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})
