"""Tokens per second of generation on the CPU, against LitGPT on the same weights.

    python benchmarks/decode.py [--repeats 3]

Greedy, 200 new tokens, fp32, torch's default number of threads, wall-clock time including the prompt.

- One prompt: the speed that ``litmoe generate`` and ``litgpt generate`` print themselves, on the same checkpoint.
- A batch of 16 prompts of 16 tokens. LitGPT has no command for that: its ``batched_generate_fn`` is called.

Both must write the same text. Two models with random weights: that of the tiny preset (8.3 M parameters), and
one of 135 M parameters and width 512 whose weights do not fit a cache, so that both are bound by memory
bandwidth.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import litgpt
import torch
from litgpt.generate.base import batched_generate_fn
from measuring import Row, interleaved, report, table, variant

from litmoe import checkpoint
from litmoe.config import PrepareConfig
from litmoe.config.load import load_train_config
from litmoe.data.prepare import prepare
from litmoe.inference.decode import decode_together
from litmoe.model.gpt import GPT

NEW, PROMPT, PROMPTS = 200, 16, 16
STORY = "Once upon a time"
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


def rows(repeats: int = 3) -> list[Row]:
    """Tokens per second for one prompt and for 16, litmoe's and LitGPT's."""
    found = []
    with tempfile.TemporaryDirectory(prefix="litmoe-decode-", ignore_cleanup_errors=True) as name:
        tokenizer = _tokenizer(Path(name))
        for model in MODELS:
            folder = Path(name) / model.replace(" ", "-")
            _save(_model(model), folder, tokenizer)
            one = interleaved(
                {"ours": partial(_our_command, folder), "litgpt": partial(_litgpt_command, folder)}, repeats
            )
            many = interleaved(
                {side: partial(variant, __file__, side, model) for side in ("ours", "litgpt")}, repeats
            )
            for figure, sides in (("1 prompt, the command", one), (f"{PROMPTS} prompts", many)):
                assert sides["ours"]["text"] == sides["litgpt"]["text"], "the texts differ"
                ours, theirs = sides["ours"]["speed"], sides["litgpt"]["speed"]
                name = f"decode, {model}, {figure}"
                found.append(Row(name, ours, theirs, unit="tokens/s", more_is_better=True))
    return found


def _model(name: str) -> GPT:
    fields = load_train_config(preset="tiny").model_config
    assert isinstance(fields, dict)
    torch.manual_seed(0)
    return GPT(litgpt.Config(**(fields | MODELS[name]))).eval()


def _tokenizer(folder: Path) -> Path:
    """A tokenizer of 2,048 tokens, trained on some of the built-in stories."""
    settings = PrepareConfig(
        source=["sample"],
        data_dir=folder / "text",
        tokenizer="train",
        vocab_size=2048,
        tokenizer_dir=folder / "tokenizer",
        max_documents=500,
        progress=False,
    )
    prepare(settings, say=lambda _: None)
    return folder / "tokenizer"


def _save(model: GPT, folder: Path, tokenizer: Path) -> None:
    contents = checkpoint.Contents(
        step=0,
        model=model.state_dict(),
        trainer=None,
        model_config=asdict(model.config),
        settings={},
        tokenizer_dir=tokenizer,
    )
    checkpoint.save(folder, contents)


def _our_command(folder: Path) -> dict[str, Any]:
    args = ["-m", "litmoe", "generate", "--checkpoint", str(folder), "--max-new-tokens", str(NEW)]
    return _printed([*args, "--prompt", STORY, "--temperature", "0"], r"([\d,]+) tokens/s")


def _litgpt_command(folder: Path) -> dict[str, Any]:
    args = ["-m", "litgpt", "generate", str(folder), "--max_new_tokens", str(NEW), "--precision", "32-true"]
    return _printed([*args, "--prompt", STORY, "--temperature", "0", "--top_k", "1"], r"([\d.]+) tokens/sec")


def _printed(args: list[str], speed: str) -> dict[str, Any]:
    """The text that a command printed, from the prompt on, and the speed that it reported."""
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, encoding="utf-8", check=True, timeout=900
    )
    found = re.search(speed, done.stderr)
    assert found, done.stderr
    text = done.stdout[done.stdout.rindex(STORY) :].strip()
    return {"speed": float(found[1].replace(",", "")), "text": text}


def measure(side: str, model: str) -> dict[str, Any]:
    """The tokens generated for a batch of prompts, and tokens per second, for one side of the comparison."""
    ours = _model(model)
    prompts = torch.randint(ours.config.vocab_size, (PROMPTS, PROMPT))
    if side == "ours":
        run = partial(_ours, ours, prompts)
    else:
        theirs = litgpt.GPT(ours.config).eval()
        theirs.load_state_dict(ours.state_dict())
        theirs.set_kv_cache(PROMPTS)
        run = partial(_litgpt, theirs, prompts)
    run(5)
    start = time.perf_counter()
    tokens = run(NEW)
    return {"speed": PROMPTS * NEW / (time.perf_counter() - start), "text": tokens}


def _ours(model: GPT, prompts: torch.Tensor, new: int) -> list[list[int]]:
    steps = decode_together(model, list(prompts), max_new_tokens=new, end_id=None, temperature=0)
    return [[token or 0 for token in text] for text in zip(*steps, strict=True)]


def _litgpt(model: litgpt.GPT, prompts: torch.Tensor, new: int) -> list[list[int]]:
    steps = batched_generate_fn(
        model,
        prompts,
        PROMPT + new,
        sample_args={"temperature": 0.0, "top_k": 1},
        include_prompt=False,
        include_eos=True,
    )
    return [torch.cat(text).tolist() for text in zip(*steps, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="side and model, to measure in this process")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.variant:
        side, model = args.variant
        report(measure(side, model))
    else:
        print(table(rows(args.repeats)))


if __name__ == "__main__":
    main()
