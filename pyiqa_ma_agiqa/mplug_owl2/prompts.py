"""The two prompts of MA-AGIQA and how they become token ids."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import SentencePieceProcessor

from ..errors import WeightsError
from .model import IMAGE_SLOT

FILE = "tokenizer.model"
TEMPLATE = "USER: {question}\n<|image|> ASSISTANT:"
"""One turn of mPLUG-Owl2's conversation, without a system text."""
QUESTIONS = (
    "Evaluate the input image to determine if its quality is compromised due to a lack of meaningful "
    "semantic content.",
    "Evaluate if the image quality is compromised due to violations of coherence.",
)
"""Semantic content, coherence: the order of the semantic vectors (MA-AGIQA, section 3.2)."""
PROMPTS = tuple(TEMPLATE.format(question=question) for question in QUESTIONS)


def load_tokenizer(folder: Path) -> SentencePieceProcessor:
    """Read `tokenizer.model` of a model's folder.

    Raises:
        WeightsError: it is missing, or is no sentencepiece model with a BOS token.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; fetch the model again")
    try:
        tokenizer = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a sentencepiece model ({error}); fetch the model again") from None
    if tokenizer.bos_id() < 0:
        raise WeightsError(f"{path}: has no BOS token, so it is not LLaMA's; fetch the model again")
    return tokenizer


def tokenise(prompt: str, tokenizer: SentencePieceProcessor) -> list[int]:
    """Token ids of a prompt with `<|image|>` once, for which `IMAGE_SLOT` stands.

    The text before and the text after the image are tokenised each alone, as LLaMA's first,
    sentencepiece-based tokenizer did: BOS, then what sentencepiece makes of the text. The second
    piece goes without BOS.
    """
    before, after = prompt.split("<|image|>")
    return [tokenizer.bos_id(), *tokenizer.encode(before), IMAGE_SLOT, *tokenizer.encode(after)]
