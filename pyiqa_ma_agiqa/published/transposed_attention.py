"""Transposed attention: attention among channels, each a token whose features are its patches."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

DROPOUT = 0.1


class TransposedAttention(nn.Module):
    r"""One block: :math:`x + \mathrm{reshape}(y^T)`, with y the attention among the channels.

    The released model transposes y to (N, patches, channels) and then reads that memory as
    (N, channels, patches) without transposing back. Its weights were trained so; it is kept.

    Reference: Yang et al., *MANIQA*, CVPR Workshops 2022, section 3.2, as released with MA-AGIQA.
    """

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.c_q = nn.Linear(patches, patches)
        self.c_k = nn.Linear(patches, patches)
        self.c_v = nn.Linear(patches, patches)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, patches) to the same shape."""
        queries, keys, values = (linear(x)[:, None] for linear in (self.c_q, self.c_k, self.c_v))
        mixed = F.scaled_dot_product_attention(queries, keys, values).squeeze(1)
        return x + self.dropout(mixed.transpose(1, 2).reshape(x.shape))
