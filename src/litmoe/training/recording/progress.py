"""What a person sees while a run goes on: a bar, or a line per logged step."""

import sys
from datetime import timedelta

from tqdm import tqdm


class Progress:
    """Shows steps, tokens, losses, speed and the time left.

    Text that must stay (validation, checkpoints, sample texts) goes through ``say``, which does not tear the bar.
    """

    def __init__(self, steps: int, done: int, show_bar: bool, quiet: bool = False) -> None:
        self.steps = steps
        self.quiet = quiet
        self.bar = (
            tqdm(total=steps, initial=done, unit="step", file=sys.stderr, dynamic_ncols=True, smoothing=0.1)
            if show_bar and not quiet
            else None
        )

    def step(self, step: int, figures: dict[str, float], seconds_per_step: float, logged: bool) -> None:
        """After step number ``step`` (from 1)."""
        if self.quiet:
            return
        tokens, loss, speed = figures["total_tokens"], figures["train_loss"], figures["tokens_per_second"]
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"{_short(tokens)} tokens, loss {loss:.3f}, {speed:,.0f} tok/s", refresh=False
            )
            self.bar.update(1)
        elif logged:
            left = timedelta(seconds=round((self.steps - step) * seconds_per_step))
            val = f" | val {figures['val_loss']:.4f}" if "val_loss" in figures else ""
            print(
                f"step {step}/{self.steps} | {_short(tokens)} tokens | loss {loss:.4f}{val} | "
                f"lr {figures['learning_rate']:.2e} | {speed:,.0f} tok/s | left {left}",
                flush=True,
            )

    def say(self, text: str) -> None:
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.clear()
        print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _short(count: float) -> str:
    """1234567 as 1.23M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
