"""What the figures of a routing explorer say, in sentences; each with its figures."""

from collections.abc import Sequence

from litmoe.report.routing.figures import ENOUGH_TOKENS, Grouping, Layer, RoutingFigures
from litmoe.report.routing.structure import FEWEST_SHUFFLES

ENOUGH_WINDOWS = 4
"""With fewer the rise of a loss has no interval to speak of."""


def verdict(figures: RoutingFigures) -> list[str]:
    """The sentences, the most important ones first."""
    sentences = [_collapsed(layer, figures) for layer in figures.layers if layer.state == "collapsed"]
    sentences.append(_structure(figures))
    if (idle := _idle(figures.layers)) is not None:
        sentences.append(idle)
    if figures.knockout_windows >= ENOUGH_WINDOWS and (costly := _costliest(figures.layers)) is not None:
        sentences.append(costly)
    for change in figures.changes:
        changed, chance = _mean(change.changed_L), _mean(change.by_chance_L)
        sentences.append(
            f"From {change.name} to {change.to_name}, {changed:.0%} of the tokens changed their first expert, "
            f"mean over layers; unrelated routers would differ in {chance:.0%}."
        )
    return sentences


def _collapsed(layer: Layer, figures: RoutingFigures) -> str:
    loads = sorted((expert.load for expert in layer.experts), reverse=True)
    most = figures.experts_per_token
    return (
        f"The router of layer {layer.layer} has collapsed: {most} of {figures.n_experts} experts get "
        f"{sum(loads[:most]):.0%} of the tokens, as if there were {layer.effective_experts:.1f} experts."
    )


def _structure(figures: RoutingFigures) -> str:
    shuffles = max((one.shuffles for layer in figures.layers for one in layer.structure.values()), default=0)
    if shuffles < FEWEST_SHUFFLES:
        return (
            f"Nothing is said about structure: that needs a text of {ENOUGH_TOKENS:,} tokens (this one has "
            f"{figures.text.tokens:,}) and {FEWEST_SHUFFLES} shuffled baselines or more (--shuffles 12)."
        )
    found, absent = [], []
    for grouping in figures.groupings:
        layers = [layer for layer in figures.layers if layer.structure[grouping.name].found]
        if layers:
            best = max(layers, key=lambda layer: layer.structure[grouping.name].bits)
            one = best.structure[grouping.name]
            found.append(
                f"{_title(grouping)} ({one.bits:.3f} bits in layer {best.layer}; with shuffled weights "
                f"{one.shuffled_mean:.3f}, at most {one.shuffled_high:.3f})"
            )
        else:
            absent.append(_title(grouping))
    if not found:
        return (
            f"No structure: the choice of experts says no more about {_listed(absent, 'or')} than that of the "
            f"same model with shuffled weights ({shuffles} shuffles). What looks typical of an expert below is "
            "chance."
        )
    text = f"The experts divide the tokens by {_listed(found, 'and')}."
    if absent:
        text += f" By {_listed(absent, 'and')} no more than the same model with shuffled weights."
    return text


def _idle(layers: Sequence[Layer]) -> str | None:
    idle = [
        (layer.layer, number) for layer in layers for number, e in enumerate(layer.experts) if e.load == 0
    ]
    if not idle:
        return None
    named = ", ".join(f"{number} of layer {layer}" for layer, number in idle[:6])
    return f"{len(idle)} experts get no token of this text: {named}{', ...' if len(idle) > 6 else ''}."


def _costliest(layers: Sequence[Layer]) -> str | None:
    measured = [
        (expert.without, layer.layer, number)
        for layer in layers
        for number, expert in enumerate(layer.experts)
        if expert.without is not None
    ]
    if not measured:
        return None
    worst, layer, number = max(measured, key=lambda one: one[0].low)  # surely, not perhaps
    harmless = sum(one.low <= 0 for one, _, _ in measured)
    return (
        f"Expert {number} of layer {layer} is missed most: without it the loss rises by {worst.rise:.3f} nats per "
        f"token ({worst.low:.3f} to {worst.high:.3f}, 95 %). {harmless} of {len(measured)} experts are not missed "
        "measurably."
    )


def _title(grouping: Grouping) -> str:
    return f"{grouping.title[0].lower()}{grouping.title[1:]}"


def _listed(words: Sequence[str], joint: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
