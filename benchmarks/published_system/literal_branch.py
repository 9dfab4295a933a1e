"""The published quality branch, experts and gate written down word for word: what ours is measured against.

All twelve blocks of the ViT, attention with its matrices spelled out, features taken by forward
hooks, windows and masks made anew at every pass. It reads the same state_dict.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import timm
import torch
from torch import nn

GRID, WINDOW, HEADS = 28, 4, 4


class TransposedAttentionBlock(nn.Module):
    def __init__(self, patches: int) -> None:
        super().__init__()
        self.c_q = nn.Linear(patches, patches)
        self.c_k = nn.Linear(patches, patches)
        self.c_v = nn.Linear(patches, patches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, patches = x.shape
        q, k, v = self.c_q(x), self.c_k(x), self.c_v(x)
        attention = (q @ k.transpose(-2, -1) * patches**-0.5).softmax(dim=-1)
        y = (attention @ v).transpose(1, 2).reshape(count, channels, patches)
        return y + x


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        count, tokens, width = x.shape
        place = torch.arange(tokens)
        down = place[:, None] // WINDOW - place[None] // WINDOW + WINDOW - 1
        right = place[:, None] % WINDOW - place[None] % WINDOW + WINDOW - 1
        bias = self.relative_position_bias_table[(2 * WINDOW - 1) * down + right].permute(2, 0, 1)
        q, k, v = self.qkv(x).reshape(count, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        logits = q * (width // HEADS) ** -0.5 @ k.transpose(-2, -1) + bias
        if mask is not None:
            windows = len(mask)
            logits = logits.view(count // windows, windows, HEADS, tokens, tokens) + mask[None, :, None]
            logits = logits.view(count, HEADS, tokens, tokens)
        return self.proj((logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(count, tokens, width))


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 768)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(768, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def mask(self) -> torch.Tensor | None:
        if not self.shift:
            return None
        regions = torch.zeros(1, GRID, GRID, 1)
        slices = (slice(0, -WINDOW), slice(-WINDOW, -self.shift), slice(-self.shift, None))
        for i, rows in enumerate(slices):
            for j, columns in enumerate(slices):
                regions[:, rows, columns] = 3 * i + j
        windows = self.windows(regions).squeeze(-1)
        different = windows[:, None] - windows[:, :, None]
        return different.masked_fill(different != 0, -100.0)

    def windows(self, x: torch.Tensor) -> torch.Tensor:
        count, _, _, width = x.shape
        x = x.view(count, GRID // WINDOW, WINDOW, GRID // WINDOW, WINDOW, width)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, WINDOW * WINDOW, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count, _, width = tokens.shape
        x = self.norm1(tokens).view(count, GRID, GRID, width)
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = self.attn(self.windows(x), self.mask())
        x = x.view(count, GRID // WINDOW, GRID // WINDOW, WINDOW, WINDOW, width)
        x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(count, GRID, GRID, width)
        x = torch.roll(x, (self.shift, self.shift), (1, 2)).view(count, GRID * GRID, width)
        tokens = tokens + x
        return tokens + self.mlp(self.norm2(tokens))


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, 0), Block(width, WINDOW // 2)])
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, width, _, _ = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return torch.relu(self.conv(tokens.transpose(1, 2).reshape(count, width, GRID, GRID)))


class Stage(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(width), Layer(width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = 0.8 * layer(x) + x
        return x


def head(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(384, 384), nn.ReLU(), nn.Dropout(0.1), nn.Linear(384, 1), last)


class LiteralModel(nn.Module):
    """Score (N, 1) of images (N, 3, H, W) in [0, 1] and vectors (N, 2, 4096), on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.vit: Any = timm.create_model("vit_base_patch8_224", pretrained=False)
        for block in self.vit.blocks:
            block.attn.fused_attn = False
        self.taken: list[torch.Tensor] = []
        for block in self.vit.blocks[6:10]:
            block.register_forward_hook(lambda module, inputs, output: self.taken.append(output))
        self.tablock1 = nn.ModuleList([TransposedAttentionBlock(784) for _ in range(2)])
        self.conv1 = nn.Conv2d(3072, 768, 1)
        self.swintransformer1 = Stage(768)
        self.tablock2 = nn.ModuleList([TransposedAttentionBlock(784) for _ in range(2)])
        self.conv2 = nn.Conv2d(768, 384, 1)
        self.swintransformer2 = Stage(384)
        self.fc_score = head(nn.ReLU())
        self.fc_weight = head(nn.Sigmoid())
        self.fc4096_784_a2 = nn.Sequential(nn.Linear(4096, 784), nn.ReLU(), nn.Dropout(0.1))
        self.fc4096_784_b2 = nn.Sequential(nn.Linear(4096, 784), nn.ReLU(), nn.Dropout(0.1))
        self.fc784_784 = nn.Linear(784, 784)
        self.gating = nn.Linear(2352, 3)
        self.output_fc = nn.Linear(784, 1)
        self.eval()

    def forward(self, images: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        self.taken.clear()
        self.vit(self.view(images))
        x = torch.cat([tokens[:, 1:] for tokens in self.taken], dim=2)
        x = x.permute(0, 2, 1).contiguous()
        for block in self.tablock1:
            x = block(x)
        x = self.swintransformer1(self.conv1(x.view(-1, 3072, GRID, GRID)))
        x = x.flatten(2)
        for block in self.tablock2:
            x = block(x)
        x = self.swintransformer2(self.conv2(x.view(-1, 768, GRID, GRID)))
        x = x.flatten(2).permute(0, 2, 1)
        quality = (self.fc_score(x) * self.fc_weight(x)).squeeze(2)
        experts = [
            self.fc4096_784_a2(semantic[:, 0]),
            self.fc4096_784_b2(semantic[:, 1]),
            self.fc784_784(quality),
        ]
        gate = self.gating(torch.cat(experts, dim=1))
        return self.output_fc(sum(gate[:, i : i + 1] * expert for i, expert in enumerate(experts)))

    def view(self, images: torch.Tensor) -> torch.Tensor:
        levels = (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        resized = [cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC) for image in levels]
        return (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
