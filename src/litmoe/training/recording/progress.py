"""What a person sees while a run goes on: a bar, or a line per logged step."""

from collections.abc import Mapping
from datetime import timedelta

from litmoe.messages import Say, silent
from litmoe.progress_bar import progress_bar


class Progress:
    """Shows steps, tokens, losses, speed and the time left; lines through ``say`` do not tear the bar."""

    def __init__(self, say: Say = silent) -> None:
        """
        Args:
            say: takes the lines; silent: nothing is shown, a bar neither.
        """
        self._say = say
        self._steps = 0
        self._bar = progress_bar(show=False)

    def say(self, line: str) -> None:
        """Pass a line on, above the bar."""
        self._bar.clear()
        self._say(line)

    def begin(self, steps: int, done: int, show_bar: bool) -> None:
        """Start to count.

        Args:
            steps: of the whole run.
            done: of these, before now.
            show_bar: a bar instead of lines, where stderr is a terminal.
        """
        self._steps = steps
        show = show_bar and self._say is not silent
        self._bar = progress_bar(total=steps, initial=done, show=show, unit="step", smoothing=0.1)

    def step(self, figures: Mapping[str, float], seconds_per_step: float, logged: bool) -> None:
        """Show a step by its row of metrics."""
        step, tokens = int(figures["step"]), _short(figures["total_tokens"])
        loss, speed = figures["train_loss"], figures["tokens_per_second"]
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{tokens} tokens, loss {loss:.3f}, {speed:,.0f} tok/s", refresh=False)
            self._bar.update(1)
        elif logged:
            left = timedelta(seconds=round((self._steps - step) * seconds_per_step))
            val = f" | val {figures['val_loss']:.4f}" if "val_loss" in figures else ""
            self._say(
                f"step {step}/{self._steps} | {tokens} tokens | loss {loss:.4f}{val} | "
                f"lr {figures['learning_rate']:.2e} | {speed:,.0f} tok/s | left {left}"
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def _short(count: float) -> str:
    """1234567 as 1.23M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
