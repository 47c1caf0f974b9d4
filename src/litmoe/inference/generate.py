"""Text from a trained model, shown as it is made."""

from collections.abc import Callable, Iterable, Iterator

import torch
from litgpt import Tokenizer

from litmoe.config import GenerateConfig
from litmoe.errors import LitMoEError
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.model.decode import decode, encode_prompt


def generate(
    config: GenerateConfig, write: Callable[[str], object] | None = None, loaded: LoadedModel | None = None
) -> list[str]:
    """Write ``config.num_samples`` texts, each with the prompt it begins with.

    Args:
        config: what to write.
        write: gets every piece of text as soon as it is known, and the line ends between texts.
        loaded: a model that is already loaded, instead of ``config.checkpoint``.

    Raises:
        LitMoEError: no checkpoint, settings out of range, or a prompt that is too long.
    """
    _check(config)
    loaded = loaded or load_checkpoint(config.checkpoint, config.accelerator)
    write = write or (lambda _: None)
    generator = torch.Generator().manual_seed(config.seed)
    texts = []
    for number in range(config.num_samples):
        if number:
            write("\n---\n")
        ids = decode(
            loaded.model,
            encode_prompt(loaded.tokenizer, config.prompt),
            max_new_tokens=config.max_new_tokens,
            end_id=loaded.tokenizer.eos_id,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            generator=generator,
        )
        write(config.prompt)
        pieces = [config.prompt]
        for piece in stream_text(loaded.tokenizer, ids):
            write(piece)
            pieces.append(piece)
        texts.append("".join(pieces))
    write("\n")
    return texts


def stream_text(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Token ids as pieces of text, each as soon as its characters are whole.

    A character may be spread over several tokens, and a word piece may look different alone: text is decoded from
    the last place where it was whole, and held back while it ends in a replacement character.
    """
    pending: list[int] = []
    context: list[int] = []  # the last whole piece, decoded along so that spaces come out right
    for token in ids:
        pending.append(token)
        before = tokenizer.decode(torch.tensor(context)) if context else ""
        piece = tokenizer.decode(torch.tensor(context + pending))[len(before) :]
        if piece and not piece.endswith("\N{REPLACEMENT CHARACTER}"):
            yield piece
            context, pending = pending, []
    if pending:
        before = tokenizer.decode(torch.tensor(context)) if context else ""
        yield tokenizer.decode(torch.tensor(context + pending))[len(before) :]


def _check(config: GenerateConfig) -> None:
    for name, ok, need in (
        ("max_new_tokens", config.max_new_tokens > 0, "greater than 0"),
        ("num_samples", config.num_samples > 0, "greater than 0"),
        ("temperature", config.temperature >= 0, "0 or more"),
        ("top_k", config.top_k is None or config.top_k > 0, "greater than 0, or null"),
        ("top_p", 0 < config.top_p <= 1, "above 0 and at most 1"),
        ("seed", 0 <= config.seed < 2**63, "0 or more"),
    ):
        if not ok:
            raise LitMoEError(f"--{name} must be {need}, got {getattr(config, name)}")
