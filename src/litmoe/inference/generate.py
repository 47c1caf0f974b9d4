"""Text from a trained model, shown as it is made."""

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from litgpt import Tokenizer

from litmoe.config import GenerateConfig
from litmoe.errors import LitMoEError
from litmoe.inference.decode import decode_together, encode_prompt
from litmoe.inference.loading import LoadedModel, load_checkpoint

TOGETHER = 16
"""Texts made at one time; each takes a key-value cache of its own."""


def generate(
    config: GenerateConfig,
    write: Callable[[str], object] | None = None,
    loaded: LoadedModel | None = None,
    say: Callable[[str], object] | None = None,
) -> list[str]:
    """Write ``config.num_samples`` texts for every prompt, each with the prompt that it begins with.

    Up to ``TOGETHER`` texts are made at one time. Each has random numbers of its own.

    Args:
        config: what to write.
        write: gets every piece of the first text as soon as it is known, then the others; and what stands between.
        loaded: a model that is already loaded, instead of ``config.checkpoint``.
        say: is told at the end how many tokens were written and how fast, reading the prompts included.

    Raises:
        LitMoEError: no checkpoint, settings out of range, or a prompt that is too long.
    """
    _check(config)
    loaded = loaded or load_checkpoint(config.checkpoint, config.accelerator)
    write = write or (lambda _: None)
    prompts = [prompt for prompt in config.prompts or [config.prompt] for _ in range(config.num_samples)]
    seeds = torch.Generator().manual_seed(config.seed)
    texts: list[str] = []
    count, start = 0, time.perf_counter()

    def counted(steps: Iterable[list[int | None]]) -> Iterator[list[int | None]]:
        nonlocal count
        for tokens in steps:
            count += sum(token is not None for token in tokens)
            yield tokens

    for first in range(0, len(prompts), TOGETHER):
        steps = counted(_steps(config, loaded, prompts[first : first + TOGETHER], seeds))
        for prompt, pieces in _texts(loaded.tokenizer, prompts[first : first + TOGETHER], steps):
            if texts:
                write("\n---\n")
            write(prompt)
            text = prompt
            for piece in pieces:
                write(piece)
                text += piece
            texts.append(text)
    write("\n")
    if say is not None:
        seconds = time.perf_counter() - start
        say(f"{count} tokens in {seconds:.2f} s, {count / seconds:,.0f} tokens/s")
    return texts


def _steps(
    config: GenerateConfig, loaded: LoadedModel, prompts: list[str], seeds: torch.Generator
) -> Iterator[list[int | None]]:
    """The next token of every text, None for those that have ended."""
    return decode_together(
        loaded.model,
        [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts],
        max_new_tokens=config.max_new_tokens,
        end_id=loaded.tokenizer.eos_id,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        generators=[
            torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeds))) for _ in prompts
        ],
    )


def _texts(
    tokenizer: Tokenizer, prompts: list[str], steps: Iterable[list[int | None]]
) -> Iterator[tuple[str, Iterator[str]]]:
    """Each prompt and the pieces of its text, to be read in turn: all are made while the first is read."""
    others: list[list[int]] = [[] for _ in prompts[1:]]

    def first() -> Iterator[int]:
        for token, *rest in steps:
            for ids, other in zip(others, rest, strict=True):
                if other is not None:
                    ids.append(other)
            if token is not None:
                yield token

    yield prompts[0], stream_text(tokenizer, first())
    for prompt, ids in zip(prompts[1:], others, strict=True):
        yield prompt, stream_text(tokenizer, ids)


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
    if config.prompt and config.prompts:
        raise LitMoEError("--prompt has no effect with --prompts: name all of them there")
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
