"""Text generation, token by token, with a key-value cache."""

from collections.abc import Iterator

import torch
from litgpt import Tokenizer
from torch import Tensor

from litmoe.errors import LitMoEError
from litmoe.model.gpt import GPT


def decode(
    model: GPT,
    prompt_T: Tensor,
    *,
    max_new_tokens: int,
    end_id: int | None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield new token ids after the prompt until the end token (not yielded), the limit, or a full context.

    The prompt is read in one pass. The model's mode and caches are put back when the iterator ends or is closed.

    Args:
        model: on its device; at most ``model.max_seq_length`` tokens of context.
        prompt_T: at least one token id, int64, any device.
        max_new_tokens: most tokens to yield.
        end_id: the token that ends a document; None: never stop early.
        temperature: 0 takes the likeliest token every time; else logits are divided by it.
        top_k: keep the k likeliest tokens.
        top_p: then keep the likeliest tokens that together have this probability (arXiv 1904.09751).
        generator: on the CPU; the same state gives the same text.

    Raises:
        LitMoEError: the prompt is empty, or fills the whole context.
    """
    device = model.cos.device
    prompt_length = prompt_T.numel()
    if prompt_length == 0:
        raise LitMoEError("the prompt has no token, and the tokenizer no begin-of-text token to start from")
    if prompt_length >= model.max_seq_length:
        raise LitMoEError(
            f"the prompt has {prompt_length} tokens, the model's context only {model.max_seq_length}: shorten it"
        )
    length = min(prompt_length + max_new_tokens, model.max_seq_length)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model.set_kv_cache(batch_size=1, max_seq_length=length, device=device)
        tokens, position = prompt_T.to(device), 0
        for _ in range(length - prompt_length):
            with torch.no_grad():
                input_pos = torch.arange(position, position + tokens.numel(), device=device)
                x_BTD, _ = model.hidden(tokens[None], input_pos, input_pos_maxp1=position + tokens.numel())
                logits_V = model.logits(x_BTD[0, -1])
            position += tokens.numel()
            token = choose(logits_V, temperature, top_k, top_p, generator)
            if token == end_id:
                return
            yield token
            tokens = torch.tensor([token], device=device)
    finally:
        model.clear_kv_cache()
        model.train(was_training)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> Tensor:
    """A prompt's token ids after the begin-of-text token, (T,), int64.

    LitGPT strips a last token that is the end token, which an empty prompt's begin token is where both are the
    same, as in GPT-2.
    """
    if tokenizer.bos_id is None:
        return tokenizer.encode(prompt, bos=False).long()
    if not prompt:
        return torch.tensor([tokenizer.bos_id])
    return tokenizer.encode(prompt, bos=True).long()


def choose(
    logits_V: Tensor, temperature: float, top_k: int | None, top_p: float, generator: torch.Generator | None
) -> int:
    """One token id from the logits over the vocabulary, drawn on the CPU in fp32 so that devices agree."""
    logits_V = logits_V.float().cpu()
    if temperature == 0:
        return int(logits_V.argmax())
    logits_K, ids_K = torch.topk(logits_V, min(top_k or logits_V.numel(), logits_V.numel()))
    probs_K = torch.softmax(logits_K / temperature, dim=0)
    if top_p < 1:
        before_K = probs_K.cumsum(0) - probs_K  # the likeliest token is always kept
        probs_K = torch.where(before_K < top_p, probs_K, 0.0)
    return int(ids_K[torch.multinomial(probs_K, 1, generator=generator)])
