"""mPLUG-Owl2 that turns images and prompts into vectors: the mean of its last hidden states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel, LlamaRotaryEmbedding

from ..errors import InputError, WeightsError
from .abstractor import Abstractor, QueryAttention
from .config import MPlugOwl2Config
from .language import KeysValues, MultiwayLlama
from .vision import PatchEmbeddings

IMAGE_SLOT = -200
"""The token id that stands for the image in a prompt."""
NO_IMAGE = slice(0, 0)
NEVER_READ = [r"^lm_head\.weight$", r"\.self_attn\.rotary_emb\.inv_freq$"]
"""Names of published files that are dropped: no logits are made, and the rotation is computed."""

Prompt = Sequence[int]
"""Token ids with `IMAGE_SLOT` once."""


@dataclass(frozen=True)
class Prefixes:
    """What the language model makes of the text before the image, for P prompts."""

    weights: tuple
    """State of the weights that made it."""
    texts: tuple[tuple[int, ...], ...]
    past: list[KeysValues]
    """For each layer keys and values (P, heads, longest, head_dim); what is beyond a text is padding."""
    sums: torch.Tensor
    """(P, width) float32, the sum of the final hidden states over each text."""


class MPlugOwl2Model(LlamaPreTrainedModel):
    """mPLUG-Owl2 as an encoder: images and prompts in, one vector for each pair out.

    The vector is the mean over all positions, text and image, of the hidden states after the final
    norm (section 3.2 of the MA-AGIQA paper). There is no `lm_head`: no logits are made.

    `from_pretrained` is that of transformers: a folder or the id of a repository on the hub, ``.bin``
    or safetensors, sharded or not, with ``dtype``, ``device_map`` and ``quantization_config``.

    Reference: Ye et al., *mPLUG-Owl2*, CVPR 2024.
    """

    config_class = MPlugOwl2Config
    config: MPlugOwl2Config
    main_input_name = "pixel_values"
    _no_split_modules = ["MultiwayLayer", "VisionTower", "Abstractor"]  # noqa: RUF012  as in the base class
    _keys_to_ignore_on_load_unexpected = NEVER_READ
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = False

    def __init__(self, config: MPlugOwl2Config) -> None:
        config.check()
        super().__init__(config)
        self.model = MultiwayLlama(config)
        self._prefixes: Prefixes | None = None
        self.register_load_state_dict_pre_hook(_drop_never_read)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but take no file that does not fit exactly.

        Raises:
            WeightsError: a file is missing or unreadable, or names or shapes do not fit.
        """
        with_info = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True  # they are listed below, with the others
        source = next(iter(args), kwargs.get("pretrained_model_name_or_path")) or "mPLUG-Owl2"
        try:
            loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except OSError as error:
            raise WeightsError(f"{source}: {error}") from error
        model, info = loaded
        for module in model.modules():
            # The kernel that bitsandbytes then takes on CPUs has no gradient, refuses widths that are
            # not multiples of 32, and is hardly faster for more than a few tokens.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        problems = [f"missing {name}" for name in sorted(info["missing_keys"])]
        problems += [f"unexpected {name}" for name in sorted(info["unexpected_keys"])]
        problems += [
            f"{name} has shape {tuple(found)}, not {tuple(wanted)}"
            for name, found, wanted in sorted(info["mismatched_keys"])
        ]
        if problems:
            raise does_not_fit(source, problems)
        return (model, info) if with_info else model

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """One plain pass through everything for each image.

        Args:
            pixel_values: (N, 3, S, S), normalised; S is `visual_model.image_size`.
            input_ids: (L,), for all images, or (N, L); -200 once in each row is the image slot.

        Returns:
            (N, hidden_size) float32: the mean hidden states.

        Raises:
            InputError: wrong shapes, token ids or slots.
        """
        return self.hidden_states(pixel_values, input_ids).float().mean(1)

    def hidden_states(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The last hidden states (N, L - 1 + image tokens, hidden_size) of such a pass."""
        count = len(pixel_values)
        if input_ids.dim() not in (1, 2) or (input_ids.dim() == 2 and len(input_ids) not in (1, count)):
            raise InputError(
                f"input_ids of shape {tuple(input_ids.shape)} do not go with {count} images; "
                f"give (L,) or ({count}, L)"
            )
        rows = input_ids.reshape(-1, input_ids.shape[-1]).expand(count, -1)
        slots = torch.tensor([len(self._split(row)[0]) for row in rows.tolist()])
        pictures = self.image_tokens(pixel_values)
        hidden: torch.Tensor | None = None
        for slot in slots.unique().tolist():
            chosen = (slots == slot).nonzero()[:, 0]
            ids, picture = rows[chosen.to(rows.device)], pictures[chosen.to(pictures.device)]
            parts = [self._embed(ids[:, :slot]), picture, self._embed(ids[:, slot + 1 :])]
            tokens = torch.cat([part.to(picture.device) for part in parts], dim=1)
            image = slice(slot, slot + picture.shape[1])
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            states, _ = self.model(tokens, positions, image)
            hidden = states.new_empty(count, *states.shape[1:]) if hidden is None else hidden
            hidden = hidden.index_copy(0, chosen.to(states.device), states)
        assert hidden is not None
        return hidden

    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels (N, 3, S, S), normalised, to image tokens (N, queries + 1, hidden_size).

        Raises:
            InputError: pixels of another shape.
        """
        side = self.config.visual_model.image_size
        if pixel_values.dim() != 4 or pixel_values.shape[1:] != (3, side, side) or len(pixel_values) == 0:
            raise InputError(
                f"pixel_values of shape {tuple(pixel_values.shape)} do not fit the model; "
                f"give (N, 3, {side}, {side})"
            )
        weight = self.model.vision_model.embeddings.patch_embed.weight
        tokens = self.model.vision_model(pixel_values.to(weight.device, weight.dtype))
        return self.model.visual_abstractor(tokens)

    def encode(self, pixel_values: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """The same vectors as `forward` for every image and every prompt, at a fraction of the cost.

        The image is read once for all prompts. The text before the image does not depend on it, so
        its keys, values and summed hidden states are kept from call to call, until the weights
        change. What remains, the image tokens and the text after them, goes through the language
        model in one batch. Gradients flow to the pixels; the weights count as constants.

        Args:
            pixel_values: (N, 3, S, S), normalised; S is `visual_model.image_size`.
            prompts: P sequences of token ids, each with -200 once, and text before it.

        Returns:
            (N, P, hidden_size) float32.

        Raises:
            InputError: wrong shapes, token ids or slots.
        """
        pieces = [self._split(prompt) for prompt in prompts]
        if not pieces or not all(before for before, _ in pieces):
            raise InputError("encode takes at least one prompt, each with text before its image slot")
        kind = self.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            prefixes = self._prefixes_of(tuple(before for before, _ in pieces))
            return self._continue(self.image_tokens(pixel_values), prefixes, [after for _, after in pieces])

    def _continue(
        self, pictures: torch.Tensor, prefixes: Prefixes, suffixes: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        count, (images, length) = len(suffixes), pictures.shape[:2]
        device = pictures.device
        ids, is_text = _padded(suffixes, device)
        tokens = torch.cat(
            [
                pictures[:, None].expand(-1, count, -1, -1),
                self._embed(ids).to(device).expand(images, -1, -1, -1),
            ],
            dim=2,
        )
        starts = torch.tensor([len(text) for text in prefixes.texts], device=device)
        here = torch.arange(tokens.shape[2], device=device)
        before = torch.arange(prefixes.past[0][0].shape[2], device=device)
        # What pads the end of a text comes after all that counts, so only the past needs a mask of its own.
        mask = torch.cat(
            [
                (before < starts[:, None])[:, None].expand(-1, len(here), -1),
                (here <= here[:, None]).expand(count, -1, -1),
            ],
            dim=2,
        )
        hidden, _ = self.model(
            tokens.flatten(0, 1),
            (starts[:, None] + here).repeat(images, 1),
            slice(0, length),
            prefixes.past,
            mask[:, None].repeat(images, 1, 1, 1),
        )
        counts = torch.cat([is_text.new_ones(count, length), is_text], dim=1).to(hidden.device)
        summed = (hidden.float().unflatten(0, (images, count)) * counts[..., None]).sum(2)
        lengths = starts.to(hidden.device) + counts.sum(1)
        return (summed + prefixes.sums.to(hidden.device)) / lengths[:, None]

    def _prefixes_of(self, texts: tuple[tuple[int, ...], ...]) -> Prefixes:
        weights = self._weights()
        kept = self._prefixes
        if kept is None or kept.texts != texts or kept.weights != weights:
            # Made outside of inference mode, so that a later call may differentiate through them.
            with torch.inference_mode(False), torch.no_grad():
                kept = self._read(texts, weights)
            self._prefixes = kept
        return kept

    def _read(self, texts: tuple[tuple[int, ...], ...], weights: tuple) -> Prefixes:
        ids, is_text = _padded(texts, self.model.embed_tokens.weight.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        hidden, past = self.model(self._embed(ids), positions, NO_IMAGE)
        sums = (hidden.float() * is_text.to(hidden.device)[..., None]).sum(1)
        return Prefixes(weights, texts, past, sums)

    def _weights(self) -> tuple:
        """Differs after weights were moved, replaced or changed in place."""
        return tuple(
            (id(weight), weight.data_ptr(), -1 if weight.is_inference() else weight._version)
            for part in (self.model.embed_tokens, self.model.layers, self.model.norm)
            for weight in part.parameters()
        )

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._prefixes = None  # moved or converted weights may lie where the old ones did
        super()._apply(*args, **kwargs)
        frequencies = self.model.rotary_emb.inv_freq
        if frequencies.dtype != torch.float32:  # rounded, they would turn late tokens too far
            self.model.rotary_emb = LlamaRotaryEmbedding(self.config).to(frequencies.device)
        return self

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_tokens(ids.to(self.model.embed_tokens.weight.device))

    def _split(self, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids before and after the image slot."""
        ids = tuple(int(token) for token in prompt)
        slots = ids.count(IMAGE_SLOT)
        if slots != 1:
            raise InputError(f"a prompt has {slots} image slots (token id {IMAGE_SLOT}); give exactly one")
        slot = ids.index(IMAGE_SLOT)
        before, after = ids[:slot], ids[slot + 1 :]
        for token in before + after:
            if not 0 <= token < self.config.vocab_size:
                raise InputError(
                    f"a prompt has the token id {token}; ids go from 0 to {self.config.vocab_size - 1}"
                )
        return before, after

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        bare: list[torch.Tensor] = []
        if isinstance(module, PatchEmbeddings):
            bare = [module.cls_token, module.position_embedding]
        elif isinstance(module, Abstractor):
            bare = [module.query_embeds, module.vit_eos]
        elif isinstance(module, QueryAttention):
            bare = [module.q_pos_embed, module.k_pos_embed]
        for tensor in bare:
            initialization.normal_(tensor, std=self.config.initializer_range)


def does_not_fit(source: object, problems: Sequence[str]) -> WeightsError:
    """The error for weights with these problems; the first few are listed."""
    listed = "; ".join(problems[:8]) + ("" if len(problems) <= 8 else f"; and {len(problems) - 8} more")
    return WeightsError(f"{source}: does not fit mPLUG-Owl2: {listed}")


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (P, longest), padded with 0 at the end, and which of them are text."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], dtype=torch.long)
    is_text = torch.tensor([[i < len(text) for i in range(longest)] for text in texts], dtype=torch.bool)
    return ids.reshape(len(texts), longest).to(device), is_text.reshape(len(texts), longest).to(device)


def _drop_never_read(module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        if any(re.search(pattern, name.removeprefix(prefix)) for pattern in NEVER_READ):
            del state_dict[name]
