"""What a person sees while a run goes on: a live view, or a line per logged step."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from litmoe.messages import Say, silent
from litmoe.training.recording.words import count_in_words

if TYPE_CHECKING:
    from litmoe.training.recording.live import LiveView


class Progress:
    """Shows steps, tokens, losses, speed and the time left; lines through ``say`` do not tear the view."""

    def __init__(self, say: Say = silent) -> None:
        """
        Args:
            say: takes the lines; silent: nothing is shown, a live view neither.
        """
        self._say = say
        self._steps = 0
        self._live: LiveView | None = None

    @property
    def is_live(self) -> bool:
        """Whether a live view stands on the terminal."""
        return self._live is not None

    def say(self, line: str) -> None:
        """Pass a line on, above the view."""
        if not self._show(lambda view: view.above(line, self._say)):
            self._say(line)

    def begin(self, steps: int, show: bool | Literal["plain"]) -> None:
        """Start to count.

        Args:
            steps: of the whole run.
            show: true: a live view, where stderr is a terminal; else a line per logged step.
        """
        self._steps = steps
        if show is True and self._say is not silent:
            from litmoe.training.recording.live import LiveView, can_show  # rich, which most runs do without

            self._live = LiveView(steps) if can_show() else None

    def step(self, figures: Mapping[str, float], seconds_per_step: float, logged: bool) -> None:
        """Show a step by its row of metrics."""
        if self._show(lambda view: view.step(figures, seconds_per_step)) or not logged:
            return
        step, tokens = int(figures["step"]), count_in_words(figures["total_tokens"])
        left = timedelta(seconds=round((self._steps - step) * seconds_per_step))
        val = f" | val {figures['val_loss']:.4f}" if "val_loss" in figures else ""
        self._say(
            f"step {step}/{self._steps} | {tokens} tokens | loss {figures['train_loss']:.4f}{val} | "
            f"lr {figures['learning_rate']:.2e} | {figures['tokens_per_second']:,.0f} tok/s | left {left}"
        )

    def sample(self, step: int, text: str) -> None:
        """Show a text that the model wrote at a step."""
        if not self._show(lambda view: view.sample(step, text)):
            self._say(f"--- step {step} writes ---\n{text}\n---")

    def event(self, kind: str, message: str) -> None:
        """Show an event where there is a place for it."""
        self._show(lambda view: view.event(kind, message))

    def close(self) -> None:
        """Leave the view as it stands; what is said from now on follows it."""
        self._show(lambda view: view.close())
        self._live = None

    def _show(self, draw: "Callable[[LiveView], object]") -> bool:
        """Draw on the view; False where there is none, or no longer: one that fails gives way to lines."""
        if self._live is None:
            return False
        try:
            draw(self._live)
        except Exception:  # a terminal that has gone, or that rich does not understand
            self._live = None
            return False
        return True
