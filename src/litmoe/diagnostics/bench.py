"""How fast a configuration trains and generates on this machine, on random tokens, as a table to paste."""

import platform
import statistics
import sys
import time
from dataclasses import dataclass

import torch

from litmoe.config import TrainConfig
from litmoe.config.checks import check
from litmoe.diagnostics.trial import time_step, trial_run
from litmoe.errors import ConfigError
from litmoe.inference.decode import decode_together
from litmoe.messages import Say, readable, silent
from litmoe.model.flops import flops_per_token, num_active_params, num_params
from litmoe.training.recording.speed import peak_flops
from litmoe.training.run import Run
from litmoe.version import __version__

PROMPT, NEW = 8, 64
TOGETHER = 16


@dataclass(frozen=True)
class Bench:
    """What a configuration does on this machine."""

    machine: str
    model: str
    step: str
    """What a step consists of, and the precision."""
    seconds_per_step: float
    tokens_per_second: float
    flops_per_second: float
    mfu: float | None
    """``flops_per_second`` over the peak of the devices; None if that is unknown."""
    peak_bytes: int | None
    """On a GPU the peak of what torch allocated, elsewhere that of the resident memory of the whole process, which
    Windows does not tell."""
    decode_tokens_per_second: dict[int, float]
    """By the number of texts written at once."""


def bench(config: TrainConfig, steps: int = 10, say: Say = silent) -> Bench:
    """Train on random tokens, then write texts of ``NEW`` tokens.

    Args:
        config: of the run.
        steps: how many count, after two that do not.
        say: told where the run departs from the configuration.

    Raises:
        LitMoEError: the configuration cannot work here.
    """
    check(config)
    with trial_run(config, say) as run:
        train, device, model_config = run.config.train, run.fabric.device, run.model_config
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = statistics.median([time_step(run).total for _ in range(steps + 2)][2:])
        tokens_per_step = train.global_batch_size * run.seq_length
        flops = flops_per_token(model_config, run.seq_length) * tokens_per_step / seconds
        best = peak_flops(run)
        together = (1, TOGETHER) if run.fabric.is_global_zero else ()
        total, active = num_params(model_config), num_active_params(model_config)
        return Bench(
            machine=_machine(device),
            model=f"{model_config.name or 'unnamed'}: {total:,} parameters, {active:,} active per token",
            step=f"{train.global_batch_size} windows of {run.seq_length}, {train.micro_batch_size} at a time, "
            f"{run.config.precision}{', compiled' if run.config.compile else ''}",
            seconds_per_step=seconds,
            tokens_per_second=tokens_per_step / seconds,
            flops_per_second=flops,
            mfu=flops / best if best else None,
            peak_bytes=_peak_bytes(device),
            decode_tokens_per_second={texts: _decode_speed(run, texts) for texts in together},
        )


def table(bench: Bench) -> str:
    """The figures as a Markdown table."""
    rows = {
        "machine": bench.machine,
        "model": bench.model,
        "step": bench.step,
        "training": f"{bench.tokens_per_second:,.0f} tokens/s, {bench.seconds_per_step * 1e3:,.0f} ms per step",
        "compute": f"{bench.flops_per_second / 1e12:.4g} TFLOP/s"
        + (f", MFU {bench.mfu:.1%}" if bench.mfu is not None else ""),
        "peak memory": readable(bench.peak_bytes) if bench.peak_bytes is not None else "not known on Windows",
        **{
            f"generation, {texts} text{'s' * (texts > 1)}": f"{speed:,.0f} tokens/s"
            for texts, speed in bench.decode_tokens_per_second.items()
        },
    }
    width, wide = max(map(len, rows)), max(map(len, rows.values()))
    lines = [f"| {name:<{width}} | {text:<{wide}} |" for name, text in rows.items()]
    head = [
        f"| {'litmoe bench':<{width}} | {__version__:<{wide}} |",
        f"|{'-' * (width + 2)}|{'-' * (wide + 2)}|",
    ]
    return "\n".join([*head, *lines])


def _decode_speed(run: Run, texts: int) -> float:
    """Tokens per second over ``texts`` texts, including reading their prompts."""
    new = min(NEW, run.seq_length - PROMPT)
    if new < 1:
        raise ConfigError(
            f"windows of {run.seq_length} tokens are too short to measure: raise --max-seq-length"
        )
    prompts = list(torch.randint(run.model_config.vocab_size, (texts, PROMPT)))
    for _ in decode_together(run.gpt, prompts, max_new_tokens=2, end_id=None, temperature=0):
        pass
    start = time.perf_counter()
    steps = sum(1 for _ in decode_together(run.gpt, prompts, max_new_tokens=new, end_id=None, temperature=0))
    return texts * steps / (time.perf_counter() - start)


def _machine(device: torch.device) -> str:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name += f", {torch.get_num_threads()} threads"
    return f"{device.type} ({name}), {platform.system()}, torch {torch.__version__}"


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
