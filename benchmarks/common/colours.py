"""Colours of the pictures."""

from __future__ import annotations

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008)."""
