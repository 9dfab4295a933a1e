"""The two ablations that train by gradient descent: prompt queries, and a tower whose upper blocks are tuned.

Both start from the tokens after block 8 of the shipped tower, kept in the cache folder, so that only
blocks 9 to 12 run: in bfloat16, and without the rounding of activations, which has no gradient. Both are
trained on train, by the objective of the recipe's first stage, on images and mirror images; the epoch is
the one with the best SRCC + PLCC on val. What they say of the late blocks then takes the place of what the
frozen tower says there; experts and gate are fitted to it as ever. An interrupted training goes on with the
epoch after the last whole one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.compact.arithmetic.layers import QuantisedLinear
from pyiqa_ma_agiqa.compact.preprocessing import encoder_view
from pyiqa_ma_agiqa.compact.semantic import DEPTHS, EARLY_AND_MIDDLE, LATE, WIDTH, Block, SemanticEncoder
from pyiqa_ma_agiqa.training.data import ImageSource
from pyiqa_ma_agiqa.training.objective import mos_loss
from pyiqa_ma_agiqa.training.quality_stage import to_tensor
from pyiqa_ma_agiqa.training.run import Run

FROZEN = DEPTHS[EARLY_AND_MIDDLE - 1]
"""Blocks below stay as they are: those of the early and middle summaries."""
BATCH = 16
EVALUATED_AT_ONCE = 8
TOKENS = (197, WIDTH)


@dataclass
class GradientConfig:
    """Settings of one training; rates per step, at the head and below it."""

    epochs: int
    head_rate: float
    rate: float
    dropout: float
    decay: float = 0.02
    average: float = 0.99
    seed: int = 20


QUERIES = GradientConfig(epochs=20, head_rate=1e-3, rate=1e-2, dropout=0.5)
TUNING = GradientConfig(epochs=6, head_rate=3e-4, rate=2e-5, dropout=0.5)


def cached(
    path: Path, count: int, shape: tuple[int, ...], kind: type, make: Callable[[int], np.ndarray]
) -> np.ndarray:
    """`make` of every row, (count, *shape), from the file if it is there."""
    if not path.exists():
        temporary = path.with_suffix(".tmp.npy")
        store = np.lib.format.open_memmap(temporary, "w+", kind, (count, *shape))
        for row in tqdm(range(count), path.stem):
            store[row] = make(row)
        store.flush()
        temporary.replace(path)
    return np.load(path, mmap_mode="r")


class LearnedLinear(nn.Module):
    """A linear map of the tower that can be trained, as the module `floats` knows one.

    Args:
        layer: holds the weights to start from.
        before: what its inputs are multiplied by, which the matrix takes over.
    """

    def __init__(self, layer: QuantisedLinear, before: torch.Tensor | float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.matrix() * before)
        self.bias = nn.Parameter(layer.bias.clone())

    def matrix(self) -> torch.Tensor:
        """(out, in)."""
        return self.weight


def learned(block: Block) -> Block:
    """A copy of a block that can be trained.

    The factors in front of its linear maps, which make rounding finer, go into the matrices: a step of
    the optimiser then means for all columns what it means in a float network.
    """
    copied = copy.deepcopy(block)
    for name, before in (("qkv", "before_qkv"), ("fc1", "before_fc1"), ("fc2", "before_fc2")):
        factors = getattr(copied, before)
        setattr(copied, name, LearnedLinear(getattr(block, name), factors))
        setattr(copied, before, torch.ones_like(factors))
    copied.proj = LearnedLinear(block.proj)  # type: ignore[assignment]
    return copied


class UpperBlocks(nn.Module):
    """A copy of the tower's blocks above `FROZEN`, which run in bfloat16 with float32 weights."""

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(map(learned, encoder.blocks[FROZEN:]))  # type: ignore[arg-type]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (N, T, 768) below to those of the late depths, (N, 2, T, 768)."""
        late = []
        with torch.autocast("cpu", torch.bfloat16):
            for depth, block in enumerate(self.blocks, start=FROZEN + 1):
                tokens = block(tokens, floats)
                if depth in DEPTHS:
                    late.append(tokens.float())
        return torch.stack(late, 1)


def summed_up(late: torch.Tensor) -> torch.Tensor:
    """Late tokens (N, 2, T, 768) to class token, patch mean and deviation, (N, 2, 3, 768)."""
    patches = late[:, :, 1:]
    return torch.stack([late[:, :, 0], patches.mean(2), patches.std(2)], 2)


class Regressor(nn.Module):
    """Something that is learned below a linear MOS head."""

    head: nn.Linear


class TunedTower(Regressor):
    """Upper blocks and a linear MOS head on their late summaries; half of the patches in training."""

    def __init__(self, encoder: SemanticEncoder, late: np.ndarray, mean_mos: float, dropout: float) -> None:
        super().__init__()
        self.upper = UpperBlocks(encoder)
        self.mean, self.deviation = (
            nn.Buffer(torch.from_numpy(value)) for value in (late.mean(0), late.std(0) + 1e-6)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = linear_head(late[0].size, mean_mos)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (N, T, 768) to a MOS (N,)."""
        if self.training:
            kept = torch.randperm(tokens.shape[1] - 1)[: tokens.shape[1] // 2] + 1
            tokens = torch.cat([tokens[:, :1], tokens[:, kept]], 1)
        summary = (summed_up(self.upper(tokens)) - self.mean) / self.deviation
        return self.head(self.dropout(summary.flatten(1))).squeeze(1)


class PromptQueries(Regressor):
    """One learned query for each late depth pools its patch tokens by attention; a linear MOS head."""

    def __init__(self, mean_mos: float, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.5 * torch.randn(LATE, WIDTH))
        self.dropout = nn.Dropout(dropout)
        self.head = linear_head(LATE * WIDTH, mean_mos)

    def pool(self, late: torch.Tensor) -> torch.Tensor:
        """Late tokens (N, 2, T, 768) to what the queries gather of the patches, (N, 2, 768)."""
        patches = F.layer_norm(late[:, :, 1:], (WIDTH,))
        attention = torch.einsum("nltw,lw->nlt", patches, self.queries / WIDTH**0.5).softmax(2)
        return torch.einsum("nlt,nltw->nlw", attention, patches)

    def forward(self, late: torch.Tensor) -> torch.Tensor:
        """Late tokens (N, 2, T, 768) to a MOS (N,)."""
        return self.head(self.dropout(self.pool(late).flatten(1))).squeeze(1)


def linear_head(inputs: int, mean_mos: float) -> nn.Linear:
    """Says the mean MOS before it is trained."""
    head = nn.Linear(inputs, 1)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, mean_mos)
    return head


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


@torch.inference_mode()
def in_batches(function: Callable[[torch.Tensor], torch.Tensor], inputs: np.ndarray) -> np.ndarray:
    """A function of (N, ...) tensors on all rows of a large array."""
    starts = range(0, len(inputs), EVALUATED_AT_ONCE)
    parts = [function(as_tensor(inputs[start : start + EVALUATED_AT_ONCE])) for start in starts]
    return torch.cat(parts).numpy()


def train(
    model: Regressor,
    plain: np.ndarray,
    mirrored: np.ndarray,
    mos: np.ndarray,
    fitted: np.ndarray,
    chosen: np.ndarray,
    config: GradientConfig,
    out: Path,
) -> list[dict[str, float]]:
    """Train in place and leave the model with the averaged weights of the epoch that val chooses.

    Args:
        model: what is to learn.
        plain: inputs of all M images.
        mirrored: inputs of the mirror images of the train part.
        mos: (M,).
        fitted, chosen: row numbers of train and val, ascending.
        config: see `GradientConfig`.
        out: folder of the checkpoints.

    Returns:
        Val figures of each epoch.
    """
    out.mkdir(parents=True, exist_ok=True)
    best, log = out / "best.pt", out / "epochs.json"
    head = list(model.head.parameters())
    below = [parameter for name, parameter in model.named_parameters() if not name.startswith("head.")]
    groups = [{"params": head, "lr": config.head_rate}, {"params": below, "lr": config.rate}]
    steps = len(fitted) // BATCH
    # The folder of all caches is bound to images, ratings and weights; see `Data` in `ablations.py`.
    run = Run(model, groups, config, steps, out / "run.pt", {})
    epochs = json.loads(log.read_text())[: run.epoch] if run.epoch else []
    for epoch in range(run.epoch, config.epochs):
        rng = np.random.default_rng([config.seed, epoch])
        torch.manual_seed(config.seed + epoch)
        order = rng.permutation(len(fitted))
        model.train()
        for step in tqdm(range(steps), f"{out.name} {epoch + 1}/{config.epochs}"):
            places = order[step * BATCH : (step + 1) * BATCH]
            turned = rng.random(BATCH) < 0.5
            inputs = [
                mirrored[place] if turn else plain[fitted[place]]
                for place, turn in zip(places, turned, strict=True)
            ]
            run.step(mos_loss(model(as_tensor(np.stack(inputs))), as_tensor(mos[fitted[places]])))
        predicted = in_batches(run.averaged.eval(), plain[chosen])
        figures = {
            "srcc": float(spearmanr(predicted, mos[chosen])[0]),
            "plcc": float(pearsonr(predicted, mos[chosen])[0]),
        }
        if not epochs or sum(figures.values()) > max(sum(earlier.values()) for earlier in epochs):
            torch.save(run.averaged.state_dict(), best)
        epochs.append(figures)
        log.write_text(json.dumps(epochs, indent=1) + "\n")
        print(f"{out.name} epoch {epoch + 1}: loss {np.mean(run.losses):.4f}, val {figures}", flush=True)
        run.end_epoch(out.name, predicted, mos[chosen])
    model.load_state_dict(torch.load(best, weights_only=True))
    model.eval()
    return epochs


class GradientAblations:
    """Summaries (M, 6, 3, 768) of images and of mirror images, as each of the two trainings makes them.

    Args:
        encoder: the shipped tower.
        images: M images.
        mos: (M,).
        fitted, chosen: row numbers of train and val, ascending.
        plain, flipped: (M, 6, 3, 768) summaries by the shipped tower.
        cache: folder of everything that takes long.
    """

    def __init__(
        self,
        encoder: SemanticEncoder,
        images: ImageSource,
        mos: np.ndarray,
        fitted: np.ndarray,
        chosen: np.ndarray,
        plain: np.ndarray,
        flipped: np.ndarray,
        cache: Path,
    ) -> None:
        self.encoder, self.images, self.cache = encoder, images, cache
        self.mos, self.fitted, self.chosen = mos, fitted, chosen
        self.plain, self.flipped = plain, flipped
        self.mean_mos = float(mos[fitted].mean())
        every = np.arange(len(mos))
        self.tokens = self._tokens("tokens", every, False)
        self.mirrored = self._tokens("tokens_mirror", fitted, True)

    def _tokens(self, name: str, rows: np.ndarray, flip: bool) -> np.ndarray:
        """Tokens (len(rows), 197, 768) after block `FROZEN`, in integers."""

        @torch.inference_mode()
        def make(place: int) -> np.ndarray:
            pixels = to_tensor([self.images[rows[place]]])
            tokens = self.encoder.embed(encoder_view(pixels.flip(3) if flip else pixels))
            for block in self.encoder.blocks[:FROZEN]:
                tokens = block(tokens)
            return tokens[0].numpy()

        return cached(self.cache / f"{name}.npy", len(rows), TOKENS, np.float16, make)

    def _late_tokens(self, name: str, tokens: np.ndarray) -> np.ndarray:
        upper = UpperBlocks(self.encoder).eval()
        path = self.cache / f"late_{name}.npy"
        shape = (LATE, *TOKENS)
        return cached(
            path, len(tokens), shape, np.float16, lambda row: in_batches(upper, tokens[row : row + 1])[0]
        )

    def _replaced(self, late: np.ndarray, late_mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Summaries of images (M) and of mirrored train images with other late parts."""
        plain, flipped = self.plain.copy(), self.flipped[self.fitted]
        plain[:, EARLY_AND_MIDDLE:], flipped[:, EARLY_AND_MIDDLE:] = late, late_mirrored
        return plain, flipped

    def prompt_queries(self) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
        """Late class tokens replaced by what learned queries gather.

        Returns:
            Summaries of all images and of mirrored train images; val figures of each epoch.
        """
        plain = self._late_tokens("tokens", self.tokens)
        mirrored = self._late_tokens("tokens_mirror", self.mirrored)
        torch.manual_seed(QUERIES.seed)
        model = PromptQueries(self.mean_mos, QUERIES.dropout)
        folder = self.cache / "queries"
        epochs = train(model, plain, mirrored, self.mos, self.fitted, self.chosen, QUERIES, folder)
        late, late_mirrored = self.plain[:, EARLY_AND_MIDDLE:].copy(), self.flipped[self.fitted]
        late_mirrored = late_mirrored[:, EARLY_AND_MIDDLE:]
        late[:, :, 0] = in_batches(model.pool, plain)
        late_mirrored[:, :, 0] = in_batches(model.pool, mirrored)
        return *self._replaced(late, late_mirrored), epochs

    def tuned_tower(self) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
        """Late summaries by upper blocks that were fine-tuned; returns as `prompt_queries`."""
        torch.manual_seed(TUNING.seed)
        frozen = self.plain[self.fitted][:, EARLY_AND_MIDDLE:]
        model = TunedTower(self.encoder, frozen, self.mean_mos, TUNING.dropout)
        folder = self.cache / "tuned"
        epochs = train(model, self.tokens, self.mirrored, self.mos, self.fitted, self.chosen, TUNING, folder)

        def late(name: str, tokens: np.ndarray) -> np.ndarray:
            path, shape = self.cache / f"tuned_{name}.npy", (LATE, 3, WIDTH)
            return cached(
                path,
                len(tokens),
                shape,
                np.float32,
                lambda row: in_batches(lambda part: summed_up(model.upper(part)), tokens[row : row + 1])[0],
            )

        return *self._replaced(late("plain", self.tokens), late("mirror", self.mirrored)), epochs
