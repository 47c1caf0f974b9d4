"""Texts that the model writes while it trains, to see it learn."""

import torch

from litmoe.inference.decode import decode_together, encode_prompt
from litmoe.training.run import Run


def sample_texts(run: Run, count: int) -> list[str]:
    """Texts from the configured prompts, in turn; none without a tokenizer, or on other devices than the first.

    The draw is a function of the run's seed and step: the training's own random numbers are not touched.
    """
    if run.tokenizer is None or not run.fabric.is_global_zero or count == 0:
        return []
    settings, tokenizer = run.config.sample, run.tokenizer
    prompts = [settings.prompts[number % len(settings.prompts)] for number in range(count)]
    seed = run.config.seed + 1_000_003 * run.state.step
    steps = decode_together(
        run.gpt,
        [encode_prompt(tokenizer, prompt)[: run.gpt.max_seq_length - 1] for prompt in prompts],
        max_new_tokens=settings.max_new_tokens,
        end_id=tokenizer.eos_id,
        temperature=settings.temperature,
        top_k=settings.top_k,
        generators=[torch.Generator().manual_seed(seed + number) for number in range(count)],
    )
    ids: list[list[int]] = [[] for _ in prompts]
    for tokens in steps:
        for text, token in zip(ids, tokens, strict=True):
            if token is not None:
                text.append(token)
    return [
        prompt + tokenizer.decode(torch.tensor(text, dtype=torch.long))
        for prompt, text in zip(prompts, ids, strict=True)
    ]
