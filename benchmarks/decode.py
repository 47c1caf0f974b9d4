"""Tokens per second of generation on the CPU, against LitGPT's generator on the same weights.

    python benchmarks/decode.py [--repeats 5]

Random weights, a prompt of 16 tokens, 200 new ones, greedy, fp32, one thread; reading the prompt is counted.
``litgpt generate`` calls the function measured here (``litgpt.generate.base.generate``); for 16 prompts at a time
the peer is its ``batched_generate_fn``. Both sides must have written the same tokens. Two models: that of the tiny
preset (8.3 M parameters), and one of 135 M parameters, width 512, whose weights do not fit a cache: there both
wait for the memory.
"""

import argparse
from functools import partial
from typing import Any

import litgpt
import torch
from litgpt.generate.base import batched_generate_fn
from litgpt.generate.base import generate as litgpt_generate
from measuring import Row, clock, interleaved, report, table, variant

from litmoe.config_files import load_train_config
from litmoe.model.decode import decode_together
from litmoe.model.gpt import GPT

NEW, PROMPT = 200, 16
MODELS = {
    "tiny preset": {},
    "width 512": {
        "n_embd": 512,
        "n_layer": 8,
        "n_head": 8,
        "n_query_groups": 4,
        "moe_intermediate_size": 1024,
        "vocab_size": 8192,
        "padded_vocab_size": 8192,
    },
}


def rows(repeats: int = 5) -> list[Row]:
    """Tokens per second for one prompt and for 16 of them, ours and LitGPT's."""
    found = []
    for model in MODELS:
        for prompts in (1, 16):
            words = (model, str(prompts))
            sides = {side: partial(variant, __file__, side, *words, threads=1) for side in ("ours", "litgpt")}
            medians = interleaved(sides, repeats)
            assert medians["ours"]["tokens"] == medians["litgpt"]["tokens"], "the texts differ"
            speeds = [medians[side]["speed"] for side in ("ours", "litgpt")]
            figure = f"decode, {model}, {prompts} prompt{'s' * (prompts > 1)}"
            found.append(Row(figure, *speeds, unit="tokens/s", more_is_better=True))
    return found


def measure(side: str, model: str, n_prompts: int) -> dict[str, Any]:
    """The tokens written and their number per second, for this process's side."""
    fields = load_train_config(preset="tiny").model_config
    assert isinstance(fields, dict)
    config = litgpt.Config(**(fields | MODELS[model]))
    torch.manual_seed(0)
    ours = GPT(config).eval()
    prompts = torch.randint(config.vocab_size, (n_prompts, PROMPT))
    if side == "ours":
        run = lambda new: _ours(ours, prompts, new)  # noqa: E731
    else:
        theirs = litgpt.GPT(config).eval()
        theirs.load_state_dict(ours.state_dict())
        theirs.set_kv_cache(n_prompts)
        run = lambda new: _litgpt(theirs, prompts, new)  # noqa: E731
    run(5)
    start = clock()
    tokens = run(NEW)
    return {"speed": n_prompts * NEW / (clock() - start), "tokens": tokens}


def _ours(model: GPT, prompts: torch.Tensor, new: int) -> list[list[int]]:
    steps = decode_together(model, list(prompts), max_new_tokens=new, end_id=None, temperature=0)
    return [[token or 0 for token in text] for text in zip(*steps, strict=True)]


def _litgpt(model: litgpt.GPT, prompts: torch.Tensor, new: int) -> list[list[int]]:
    greedy = {"temperature": 0.0, "top_k": 1}
    if len(prompts) == 1:
        text = litgpt_generate(model, prompts[0], PROMPT + new, include_prompt=False, **greedy)
        return [text.tolist()]
    steps = batched_generate_fn(
        model, prompts, PROMPT + new, sample_args=greedy, include_prompt=False, include_eos=True
    )
    return [torch.cat(text).tolist() for text in zip(*steps, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "variant", nargs="*", help="side, model and number of prompts, to measure in this process"
    )
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    if words.variant:
        side, model, n_prompts = words.variant
        report(measure(side, model, int(n_prompts)))
    else:
        print(table(rows(words.repeats)))


if __name__ == "__main__":
    main()
