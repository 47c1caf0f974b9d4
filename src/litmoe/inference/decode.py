"""Token ids after a prompt, one by one, with a key-value cache; several sequences at once.

Shape suffixes: B sequences, T tokens of a prompt, V vocabulary.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litmoe.errors import ConfigError
from litmoe.inference.decoder import Decoder
from litmoe.inference.sampling import choose

if TYPE_CHECKING:
    from litmoe.model.gpt import GPT

Ends = Callable[[int], bool]
"""Told every token of a sequence; true ends the sequence with that token."""


def decode(
    model: "GPT | Decoder",
    prompt_T: Tensor,
    *,
    max_new_tokens: int,
    end_id: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield new token ids after one prompt, as :func:`decode_together` does for several."""
    steps = decode_together(
        model,
        [prompt_T],
        max_new_tokens=max_new_tokens,
        end_id=end_id,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generators=[generator],
    )
    try:
        for (token,) in steps:
            assert token is not None  # the only sequence has not ended
            yield token
    finally:
        steps.close()


def decode_together(
    model: "GPT | Decoder",
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    end_id: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generators: Sequence[torch.Generator | None] | None = None,
    ends: Sequence[Ends] | None = None,
) -> Generator[list[int | None], None, None]:
    """Yield the next token id of every sequence, until all have ended; None for those that have.

    A sequence ends with the end token (not yielded), the limit, or a full context. Each prompt is read in one
    pass, equal ones once; then all sequences go on together, a token at a time. The model's mode and caches are
    put back when the iterator ends or is closed.

    Args:
        model: on its device; at most ``max_seq_length`` tokens of context.
        prompts: for each sequence at least one token id, (T,), int64, any device.
        max_new_tokens: most tokens to yield for a sequence.
        end_id: the token that ends a document; None: never stop early.
        temperature: 0 takes the likeliest token every time; else logits are divided by it.
        top_k: keep the k likeliest tokens.
        top_p: then keep the likeliest tokens that together have this probability (arXiv 1904.09751).
        generators: one per sequence, on the CPU; the same state gives the same text.
        ends: one per sequence, where its tokens may end it in other ways.

    Raises:
        ConfigError: a prompt is empty, or fills the whole context.
        CheckpointError: the model's weights have diverged.
    """
    decoder = _as_decoder(model)
    # How long each sequence may become decides how much cache is needed.
    lengths = [prompt_T.numel() for prompt_T in prompts]
    check_lengths(lengths, decoder.context)
    limits = [min(max_new_tokens, decoder.context - length) for length in lengths]
    longest = max(length + limit for length, limit in zip(lengths, limits, strict=True))
    generators = generators or [None] * len(prompts)
    try:
        # The prompts fill the caches, and give the logits of the first new tokens.
        with torch.no_grad():
            decoder.open(len(prompts), longest)
        with torch.inference_mode():
            logits_BV = _read_prompts(decoder, [prompt_T.to(decoder.device) for prompt_T in prompts])
            ends_B = torch.tensor(lengths, device=decoder.device)

        ended = [False] * len(prompts)
        for number in range(max(limits)):
            # One token for every sequence that has not ended.
            tokens: list[int | None] = []
            for row, (limit, generator) in enumerate(zip(limits, generators, strict=True)):
                ended[row] = ended[row] or number >= limit
                token = None if ended[row] else choose(logits_BV[row], temperature, top_k, top_p, generator)
                ended[row] = ended[row] or token == end_id
                tokens.append(None if ended[row] else token)
                if ends is not None and not ended[row]:
                    assert token is not None
                    ended[row] = ends[row](token)
            if tokens.count(None) < len(tokens):
                yield tokens
            if all(ended) or number + 1 == max(limits):
                return

            # Their logits. Sequences that have ended go along, where they do no harm.
            position: int | Tensor = lengths[0] + number
            with torch.inference_mode():
                if len(set(lengths)) > 1:
                    position = (ends_B + number).clamp(max=longest - 1)
                tokens_B = torch.tensor([token or 0 for token in tokens], device=decoder.device)
                logits_BV = decoder.step(tokens_B, position)
    finally:
        decoder.close()


def check_lengths(lengths: Sequence[int], context: int) -> None:
    """Refuse prompts that leave no room for a token.

    Args:
        lengths: tokens of each prompt.
        context: tokens that the model can look at.

    Raises:
        ConfigError: a prompt is empty, or fills the whole context.
    """
    for length in lengths:
        if length == 0:
            raise ConfigError(
                "the prompt has no token, and the tokenizer no begin-of-text token to start from: give a prompt"
            )
        if length >= context:
            raise ConfigError(
                f"the prompt has {length:,} tokens, the model's context only {context:,}: shorten it"
            )


def _read_prompts(decoder: Decoder, prompts: Sequence[Tensor]) -> Tensor:
    """Fill the caches with the prompts; returns the logits after each, (B, V)."""
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, prompt_T in enumerate(prompts):
        rows_of.setdefault(tuple(prompt_T.tolist()), []).append(row)
    logits: dict[int, Tensor] = {}
    # A prompt is always read into row 0 and copied to its own rows; so the prompt of row 0 comes last.
    for rows in reversed(rows_of.values()):
        prompt_T = prompts[rows[0]]
        logits_V = decoder.read(prompt_T)
        for row in rows:
            logits[row] = logits_V
            if row:
                decoder.copy(row, prompt_T.numel())
    return torch.stack([logits[row] for row in range(len(prompts))])


def _as_decoder(model: "GPT | Decoder") -> Decoder:
    if isinstance(model, Decoder):
        return model
    from litmoe.inference.model_decoder import ModelDecoder  # with LitGPT: seconds

    return ModelDecoder(model)
