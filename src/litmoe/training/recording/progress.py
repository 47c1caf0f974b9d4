"""What a person sees while a run goes on: a bar, or a line per logged step."""

from datetime import timedelta

from litmoe.messages import Say, silent
from litmoe.progress_bar import progress_bar


class Progress:
    """Shows steps, tokens, losses, speed and the time left.

    Text that must stay (validation, checkpoints, sample texts) goes through ``say``, which does not tear the bar.
    """

    def __init__(self, steps: int, done: int, show_bar: bool, say: Say = silent) -> None:
        """
        Args:
            steps: of the whole run.
            done: of these, before now.
            show_bar: a bar instead of lines, where stderr is a terminal.
            say: takes the lines; silent: nothing is shown, a bar neither.
        """
        self.steps = steps
        self._say = say
        self._bar = progress_bar(
            total=steps, initial=done, show=show_bar and say is not silent, unit="step", smoothing=0.1
        )

    def step(self, step: int, figures: dict[str, float], seconds_per_step: float, logged: bool) -> None:
        """Show step number ``step`` (from 1)."""
        tokens, loss, speed = figures["total_tokens"], figures["train_loss"], figures["tokens_per_second"]
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"{_short(tokens)} tokens, loss {loss:.3f}, {speed:,.0f} tok/s", refresh=False
            )
            self._bar.update(1)
        elif logged:
            left = timedelta(seconds=round((self.steps - step) * seconds_per_step))
            val = f" | val {figures['val_loss']:.4f}" if "val_loss" in figures else ""
            self._say(
                f"step {step}/{self.steps} | {_short(tokens)} tokens | loss {loss:.4f}{val} | "
                f"lr {figures['learning_rate']:.2e} | {speed:,.0f} tok/s | left {left}"
            )

    def say(self, text: str) -> None:
        """Pass a line on, above the bar."""
        self._bar.clear()
        self._say(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def _short(count: float) -> str:
    """1234567 as 1.23M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
