"""Text from a trained model, shown as it is written."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litmoe.config import GenerateConfig
from litmoe.data.reading.formats import read_text
from litmoe.errors import ConfigError
from litmoe.inference.decode import check_lengths, decode_together
from litmoe.inference.decoder import Decoder
from litmoe.inference.loading import LoadedDecoder, LoadedModel, load_decoder
from litmoe.inference.prompts import encode_prompt
from litmoe.inference.text_stream import StopStrings, TextStream
from litmoe.messages import Say, silent

TOGETHER = 16
"""Texts written at once; each takes a key-value cache of its own."""

_SEPARATOR = "\n---\n"


def generate(
    config: GenerateConfig,
    write: Callable[[str], object] | None = None,
    loaded: LoadedModel | LoadedDecoder | None = None,
    say: Say = silent,
) -> list[str]:
    """Write ``config.num_samples`` texts for every prompt, each with the prompt that it begins with.

    Up to ``TOGETHER`` texts are written at once. Each has random numbers of its own.

    Args:
        config: what to write.
        write: gets every piece of the first text as soon as it is known, then the others, and what stands between.
        loaded: a model that is already loaded, instead of ``config.checkpoint``.
        say: told where a setting has no effect or the context ends a text, and how many tokens were written how
            fast, reading the prompts included.

    Raises:
        ConfigError: settings out of range, or a prompt that is too long.
        CheckpointError: no checkpoint, or one that cannot be used.
        DataError: a prompt file that cannot be read.
    """
    prompts = _prompts(config)
    loaded = loaded or load_decoder(config.checkpoint, config.accelerator, say)
    decoder, tokenizer = loaded.decoder, loaded.tokenizer
    write = write or (lambda _: None)
    if config.top_k is not None and config.top_k > decoder.vocabulary:
        say(
            f"--top-k {config.top_k}: the vocabulary has only {decoder.vocabulary:,} tokens; all of them are "
            "candidates"
        )
    texts = [_Text(tokenizer, prompt, config) for prompt in prompts for _ in range(config.num_samples)]
    check_lengths([text.prompt_T.numel() for text in texts], decoder.context)
    seeds = torch.Generator().manual_seed(config.seed)
    start = time.perf_counter()

    for first in range(0, len(texts), TOGETHER):
        group = texts[first : first + TOGETHER]
        write((_SEPARATOR if first else "") + group[0].prompt)
        for piece in _write_group(config, decoder, tokenizer.eos_id, group, seeds):
            write(piece)
        for text in group[1:]:
            write(_SEPARATOR + text.whole)
    write("\n")

    count, seconds = sum(text.n_tokens for text in texts), time.perf_counter() - start
    cut = [text for text in texts if text.is_cut(decoder.context)]
    if cut:
        say(
            f"the context of {decoder.context:,} tokens, prompt included, was full: it ended "
            f"{len(cut)} of {len(texts)} texts before --max-new-tokens {config.max_new_tokens}"
        )
    say(f"{count} tokens in {seconds:.2f} s, {count / seconds:,.0f} tokens/s")
    return [text.whole for text in texts]


class _Text:
    """A text that is being written."""

    def __init__(self, tokenizer: Any, prompt: str, config: GenerateConfig) -> None:
        self.prompt = prompt
        self.prompt_T: Tensor = encode_prompt(tokenizer, prompt, allow_special=config.allow_special)
        self.n_tokens = 0
        self._most = config.max_new_tokens
        self._stream = TextStream(tokenizer, self.prompt_T.tolist())
        self._stops = StopStrings(config.stop)
        self._pieces: list[str] = []
        self._taken = 0  # pieces

    def add(self, token: int) -> bool:
        """Take a token; returns whether a stop string ends the text with it."""
        self.n_tokens += 1
        self._pieces.append(self._stops.add(self._stream.add(token)))
        return self._stops.found

    def end(self) -> None:
        """There are no more tokens."""
        self._pieces.append(self._stops.add(self._stream.end()) + self._stops.end())

    def take(self) -> str:
        """What is new since the last call."""
        new = "".join(self._pieces[self._taken :])
        self._taken = len(self._pieces)
        return new

    @property
    def whole(self) -> str:
        """The prompt and what follows it."""
        return self.prompt + "".join(self._pieces)

    def is_cut(self, context: int) -> bool:
        """Whether it might have gone on, had the context been longer."""
        is_full = self.prompt_T.numel() + self.n_tokens == context
        return is_full and self.n_tokens < self._most and not self._stops.found


def _write_group(
    config: GenerateConfig, decoder: Decoder, end_id: int | None, texts: list[_Text], seeds: torch.Generator
) -> Iterator[str]:
    """Write texts at once; yields the pieces of the first one."""
    generators = [
        torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeds))) for _ in texts
    ]
    steps = decode_together(
        decoder,
        [text.prompt_T for text in texts],
        max_new_tokens=config.max_new_tokens,
        end_id=end_id,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        generators=generators,
        ends=[text.add for text in texts],
    )
    for _ in steps:
        if piece := texts[0].take():
            yield piece
    for text in texts:
        text.end()
    if piece := texts[0].take():
        yield piece


def _prompts(config: GenerateConfig) -> list[str]:
    """The prompts that are asked for, once all settings are known to be in range."""
    named = [
        name for name in ("prompt", "prompts", "prompt_file") if getattr(config, name) not in ("", [], None)
    ]
    if len(named) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in named[:2])
        raise ConfigError(f"{first} has no effect with {second}: give one of them")
    for name, ok, need in (
        ("max-new-tokens", config.max_new_tokens > 0, "greater than 0"),
        ("num-samples", config.num_samples > 0, "greater than 0"),
        ("temperature", 0 <= config.temperature < float("inf"), "0 or more"),
        ("top-k", config.top_k is None or config.top_k > 0, "greater than 0, or null"),
        ("top-p", 0 < config.top_p <= 1, "above 0 and at most 1"),
        ("seed", 0 <= config.seed < 2**63, "0 or more, and below 2^63"),
        ("stop", all(config.stop), "text, not empty"),
    ):
        if not ok:
            raise ConfigError(f"--{name} must be {need}, got {getattr(config, name.replace('-', '_'))}")
    if config.prompt_file is not None:
        return [_prompt_in(config.prompt_file)]
    return config.prompts or [config.prompt]


def _prompt_in(path: Path) -> str:
    """A file's whole text but for its last line break, with line breaks as in the text to train on."""
    text = "".join(read_text(path)).removeprefix("\ufeff")
    return text.removesuffix("\n")
