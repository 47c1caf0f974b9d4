"""What looks wrong in a run, the figure that says so, and what to try. No hint without a figure."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from litmoe.report.figures import Curve, Hint, Numbers, RunFigures

PROBLEM, WARNING, NOTE = "problem", "warning", "note"

Rule = Callable[[RunFigures], Iterator[Hint]]

_ENOUGH = 8
"""Points that a curve must have before it is judged."""


def hints_for(run: RunFigures) -> list[Hint]:
    """All hints that a run's figures give, the worst first."""
    found = [hint for rule in RULES for hint in rule(run)]
    return sorted(found, key=lambda hint: (PROBLEM, WARNING, NOTE).index(hint.severity))


def not_finite(run: RunFigures) -> Iterator[Hint]:
    """A loss that was no number."""
    if run.not_finite:
        yield Hint(
            PROBLEM,
            "The loss was not a finite number",
            f"{run.not_finite:,} of {run.rows:,} logged steps have no finite train_loss",
            "Lower the learning rate, lengthen the warm-up (--train.lr-warmup-steps), or clip (--train.max-norm "
            "1). --faults.on-non-finite rollback goes back to the last checkpoint by itself.",
            "loss",
        )


def unusual_events(run: RunFigures) -> Iterator[Hint]:
    """Steps skipped and checkpoints gone back to."""
    skipped, back = int(run.last.get("skipped_steps", 0)), int(run.last.get("rollbacks", 0))
    if skipped or back:
        yield Hint(
            WARNING,
            "Steps were skipped",
            f"skipped_steps = {skipped:,}, rollbacks = {back:,} after step {int(run.last['step']):,}",
            "A few are harmless. If they go on, lower the learning rate or --train.max-norm.",
            "events",
        )


def not_learning(run: RunFigures) -> Iterator[Hint]:
    """A loss that stays near that of guessing."""
    loss = _measured(run.curves.values.get("train_loss"))
    vocabulary = _number(run, "model", "vocab_size") or _number(run, "settings", "model_config", "vocab_size")
    if vocabulary and len(loss) >= 2 * _ENOUGH and loss[-_ENOUGH:].mean() > 0.9 * math.log(vocabulary):
        yield Hint(
            PROBLEM,
            "The model has not learned yet",
            f"train_loss = {loss[-_ENOUGH:].mean():.3f}; guessing among {int(vocabulary):,} tokens is "
            f"{math.log(vocabulary):.3f}",
            "Raise the learning rate (optimizer.init_args.lr; 0.001 to 0.003 suits small models), and look at the "
            "text: litmoe prepare shows how many documents and tokens there are.",
            "loss",
        )


def overfitting(run: RunFigures) -> Iterator[Hint]:
    """A validation loss that rises again."""
    val = _measured(run.validation.values.get("val_loss"))
    if len(val) >= 4 and "val_loss" in run.best:
        best, last = run.best["val_loss"], val[-1]
        if last > 1.02 * best and int(val.argmin()) < 0.8 * len(val):
            epochs = f"; {run.last['epoch']:.1f} passes over the text" if "epoch" in run.last else ""
            yield Hint(
                WARNING,
                "The validation loss rises again",
                f"val_loss = {last:.4f}, lowest {best:.4f} at step {int(run.best['step']):,}{epochs}",
                "The model learns the text by heart: use more text or fewer passes, or keep the best checkpoint "
                "(checkpoint.keep_best does).",
                "loss",
            )


def still_falling(run: RunFigures) -> Iterator[Hint]:
    """A finished run that was still getting better."""
    val = _measured(run.validation.values.get("val_loss"))
    if run.state == "finished" and len(val) >= 5:
        tail = max(2, len(val) // 5)
        gain = (val[-tail - 1] - val[-1]) / val[-tail - 1]
        if gain > 0.02 and val.argmin() == len(val) - 1:
            yield Hint(
                NOTE,
                "The run ended while it was still getting better",
                f"val_loss fell by {gain:.1%} over the last {tail} of {len(val)} validations",
                "A longer run (--max-tokens) goes on from here with --resume auto.",
                "loss",
            )


def spikes(run: RunFigures) -> Iterator[Hint]:
    """Single steps whose loss leaves the curve."""
    curve = run.curves.values.get("train_loss")
    if curve is None or len(curve.mean) < 4 * _ENOUGH:
        return
    mean = np.array([np.nan if value is None else value for value in curve.mean])
    high = np.array([np.nan if v is None else v for v in curve.high]) if curve.high else mean
    settled = slice(len(mean) // 10, None)  # the fall at the start is no spike
    usual = np.nanmedian(np.stack([np.roll(mean, shift) for shift in range(-3, 4)]), axis=0)
    spiky = np.flatnonzero((high > 1.5 * usual)[settled])
    if len(spiky):
        worst = settled.start + int(spiky[np.argmax((high / usual)[settled][spiky])])
        yield Hint(
            WARNING,
            "The loss spikes",
            f"train_loss reached {high[worst]:.3f} near step {int(run.curves.step[worst] or 0):,}, "
            f"{high[worst] / usual[worst]:.1f} times its neighbours; {len(spiky)} such places",
            "Lower the learning rate, or set --faults.spike-factor 2 with --faults.on-non-finite skip.",
            "loss",
        )


def gradients(run: RunFigures) -> Iterator[Hint]:
    """A gradient that is always clipped hard."""
    norm = _measured(run.curves.values.get("grad_norm"))
    limit = _number(run, "settings", "train", "max_norm")
    if limit and len(norm) >= _ENOUGH:
        late = norm[len(norm) // 2 :]
        if (late > 3 * limit).mean() > 0.9:
            yield Hint(
                WARNING,
                "The gradient is clipped hard at nearly every step",
                f"grad_norm is {np.median(late):.2f} in the second half, train.max_norm {limit:g}",
                "The step no longer follows the gradient: lower the learning rate, or raise --train.max-norm.",
                "grad_norm",
            )


def collapsed_routing(run: RunFigures) -> Iterator[Hint]:
    """Layers whose tokens go to a few experts only."""
    if run.load is None or run.load.pooled > 1:
        return
    chosen = int(
        _number(run, "model", "n_expert_per_token") or _number(run, *_MODEL, "n_expert_per_token") or 1
    )
    for layer, rows in enumerate(run.load.relative):
        late = np.array([np.mean(_tail(row) or [0.0]) for row in rows])
        share = np.sort(late)[::-1] / max(late.sum(), 1e-9)
        if len(late) > 2 * chosen and share[:chosen].sum() > 0.9:
            yield Hint(
                PROBLEM,
                f"The router of layer {layer} has collapsed",
                f"{chosen} of {len(late)} experts get {share[:chosen].sum():.0%} of the tokens in the last tenth "
                "of the run",
                _BALANCE_ADVICE,
                "load",
            )


def dead_experts(run: RunFigures) -> Iterator[Hint]:
    """Experts that no token reaches any more."""
    if run.load is None:
        return
    dead = [(layer, _tail(row)) for layer, row in enumerate(run.load.layers["dead_experts"])]
    dying = [(layer, float(np.mean(values))) for layer, values in dead if values and np.mean(values) >= 0.5]
    if dying:
        n_experts = int(_number(run, "model", "n_expert") or len(run.load.relative[0]) * run.load.pooled)
        listed = ", ".join(f"{count:.3g} in layer {layer}" for layer, count in dying[:6])
        yield Hint(
            PROBLEM,
            "Experts are dead",
            f"dead_experts, mean over the last tenth of the run: {listed}, of {n_experts} each",
            _BALANCE_ADVICE,
            "load",
        )


def uneven_load(run: RunFigures) -> Iterator[Hint]:
    """A load that is alive but lopsided."""
    if run.load is None:
        return
    worst, where = 0.0, 0
    for layer, row in enumerate(run.load.layers["load_max_over_mean"]):
        if (values := _tail(row)) and np.mean(values) > worst:
            worst, where = float(np.mean(values)), layer
    if worst > 2.5:
        yield Hint(
            NOTE,
            "The load is uneven",
            f"load_max_over_mean = {worst:.2f} in layer {where}, mean over the last tenth of the run (1 is even)",
            "It costs speed on several devices, hardly quality. --moe.balance bias evens it most, a higher "
            "--moe.switch-coefficient less.",
            "balance",
        )


def undecided_router(run: RunFigures) -> Iterator[Hint]:
    """A router that gives all experts the same probability."""
    if run.load is None or run.load.pooled > 1 or len(run.load.step) < _ENOUGH:
        return
    most = math.log(len(run.load.relative[0]))
    undecided = [
        layer
        for layer, row in enumerate(run.load.layers["router_entropy"])
        if (values := _tail(row)) and np.mean(values) > 0.98 * most
    ]
    if undecided:
        yield Hint(
            NOTE,
            "The router has not decided",
            f"router_entropy is within 2 % of its maximum {most:.3f} in layer "
            f"{', '.join(map(str, undecided[:8]))}",
            "Early in a run that is usual. If it stays, lower --moe.switch-coefficient or --moe.z-coefficient; "
            "litmoe inspect shows whether the experts differ.",
            "balance",
        )


def slowing_down(run: RunFigures) -> Iterator[Hint]:
    """A run that gets slower."""
    speed = _measured(run.curves.values.get("tokens_per_second"))
    if len(speed) >= 4 * _ENOUGH:
        before, after = np.median(speed[: len(speed) // 2]), np.median(speed[-len(speed) // 10 :])
        if after < 0.75 * before:
            yield Hint(
                WARNING,
                "The run has become slower",
                f"tokens_per_second = {after:,.0f} in the last tenth, {before:,.0f} in the first half",
                "Something else uses the machine, or it is too hot; a restart with --resume auto loses nothing.",
                "speed",
            )


def memory_nearly_full(run: RunFigures) -> Iterator[Hint]:
    """A device with hardly any memory left."""
    used, size = run.last.get("device_memory"), _number(run, "hardware", "device_memory")
    if used and size and used > 0.95 * size:
        yield Hint(
            NOTE,
            "The device's memory is nearly full",
            f"device_memory = {used / 1e9:.2f} of {size / 1e9:.2f} GB",
            "Another program on the card may end the run: --faults.on-oom shrink halves the micro-batch then.",
            "memory",
        )


RULES: tuple[Rule, ...] = (
    not_finite,
    not_learning,
    collapsed_routing,
    dead_experts,
    unusual_events,
    spikes,
    overfitting,
    gradients,
    slowing_down,
    still_falling,
    uneven_load,
    undecided_router,
    memory_nearly_full,
)

_MODEL = ("settings", "model_config")
_BALANCE_ADVICE = (
    "Balance the load: --moe.balance switch with a higher --moe.switch-coefficient (0.01 is the default), or "
    "--moe.balance bias. Dead experts seldom come back: start again, or from a checkpoint before they died."
)


def _measured(curve: Curve | None) -> np.ndarray:
    """The means of a curve that were measured, in order."""
    return np.array([value for value in (curve.mean if curve else []) if value is not None])


def _tail(row: Numbers) -> list[float]:
    """What was measured in the last tenth of the points."""
    return [value for value in row[-max(1, len(row) // 10) :] if value is not None]


def _number(run: RunFigures, *names: str) -> float | None:
    """A number of `about` or, after the name ``settings``, of the settings; None where it is not there."""
    found: Any = {"settings": run.settings} if names[0] == "settings" else run.about
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
