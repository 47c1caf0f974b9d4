"""Texts that the model writes while it trains, to see it learn."""

import torch

from litmoe.model.decode import decode, encode_prompt
from litmoe.training.run import Run


def sample_texts(run: Run, count: int) -> list[str]:
    """Texts from the configured prompts, in turn; none without a tokenizer, or on other devices than the first.

    The draw is a function of the run's seed and step: the training's own random numbers are not touched.
    """
    if run.tokenizer is None or not run.fabric.is_global_zero:
        return []
    settings, tokenizer = run.config.sample, run.tokenizer
    texts = []
    for number in range(count):
        prompt = settings.prompts[number % len(settings.prompts)]
        generator = torch.Generator().manual_seed(run.config.seed + 1_000_003 * run.state.step + number)
        prompt_T = encode_prompt(tokenizer, prompt)[: run.gpt.max_seq_length - 1]
        new = decode(
            run.gpt,
            prompt_T,
            max_new_tokens=settings.max_new_tokens,
            end_id=tokenizer.eos_id,
            temperature=settings.temperature,
            top_k=settings.top_k,
            generator=generator,
        )
        texts.append(prompt + tokenizer.decode(torch.tensor(list(new), dtype=torch.long)))
    return texts
