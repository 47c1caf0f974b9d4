"""Texts that the model writes while it trains, to see it learn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litmoe.inference.decode import decode_together
from litmoe.inference.prompts import encode_prompt
from litmoe.inference.text_stream import stream_text
from litmoe.training.run import Run


def prompt_of_step(run: Run) -> str | None:
    """The configured prompt, in turn, where a text is due at this step; else None."""
    interval, prompts, step = run.config.sample.interval, run.config.sample.prompts, run.state.step
    if not interval or step % interval:
        return None
    return prompts[(step // interval - 1) % len(prompts)]


def final_prompts(run: Run) -> list[str]:
    """The configured prompts, in turn, for the texts after the last step."""
    prompts = run.config.sample.prompts
    return [prompts[number % len(prompts)] for number in range(run.config.sample.final)]


def sample_texts(run: Run, prompts: Sequence[str]) -> list[str]:
    """A text from each prompt; none without a tokenizer, or on other processes than the first.

    The draw is a function of the run's seed and step: training's own random numbers are not touched. Where the
    texts cannot be written, that is an event, and there are none from then on.
    """
    texts: list[str] = []
    if run.tokenizer is not None and run.fabric.is_global_zero and prompts:
        run.events.show("sample_failed", lambda: texts.extend(_write(run, prompts)), "no more sample texts")
    return texts


def prompt_notes(run: Run) -> list[str]:
    """What is worth knowing of the configured prompts, one line each: those that are cut to the context."""
    if run.tokenizer is None or not (run.config.sample.interval or run.config.sample.final):
        return []
    notes, context = [], run.gpt.max_seq_length
    for number, prompt in enumerate(run.config.sample.prompts):
        length = encode_prompt(run.tokenizer, prompt).numel()
        if length >= context:
            notes.append(
                f"sample.prompts[{number}] has {length} tokens; only its first {context - 1} are used, as the "
                f"context has {context}"
            )
    return notes


def _write(run: Run, prompts: Sequence[str]) -> list[str]:
    settings, tokenizer, context = run.config.sample, run.tokenizer, run.gpt.max_seq_length
    assert tokenizer is not None
    seed = run.config.seed + 1_000_003 * run.state.step
    prompts_T: list[Tensor] = [encode_prompt(tokenizer, prompt)[: context - 1] for prompt in prompts]
    steps = decode_together(
        run.gpt,
        prompts_T,
        max_new_tokens=settings.max_new_tokens,
        end_id=tokenizer.eos_id,
        temperature=settings.temperature,
        top_k=settings.top_k,
        generators=[torch.Generator().manual_seed(seed + number) for number in range(len(prompts))],
    )
    ids: list[list[int]] = [[] for _ in prompts]
    for tokens in steps:
        for text, token in zip(ids, tokens, strict=True):
            if token is not None:
                text.append(token)
    cut = sum(
        len(prompt_T) + len(text) == context and len(text) < settings.max_new_tokens
        for prompt_T, text in zip(prompts_T, ids, strict=True)
    )
    if cut:
        run.say(f"{cut} of {len(ids)} sample texts end where the context of {context} tokens does")
    return [
        prompt + "".join(stream_text(tokenizer, text, prompt_T.tolist()))
        for prompt, prompt_T, text in zip(prompts, prompts_T, ids, strict=True)
    ]
