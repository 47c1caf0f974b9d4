"""The cheapest changes that make a run fit a device's memory."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from litmoe.config import TrainConfig, as_plain
from litmoe.config.load import merge
from litmoe.diagnostics.plan import Plan

ADAMW = ("AdamW", "torch.optim.AdamW", "AdamW8bit")
SHORTEST = 256


@dataclass(frozen=True)
class Change:
    """A change of the configuration that saves memory."""

    settings: dict[str, Any]
    """The settings, section by section, as in YAML."""
    cost: str
    """What it costs, in a phrase."""

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """A copy of a configuration with this change."""
        changed = deepcopy(config)
        for name, value in self.settings.items():
            target = getattr(changed, name)
            if isinstance(value, dict):
                for key, item in value.items():
                    setattr(target, key, item)
            else:
                setattr(changed, name, value)
        return changed


def changes(plan: Plan) -> Iterator[Change]:
    """Changes that save memory, cheapest first.

    First those that take a little time or round only the optimizer's moments, then those that take a third more
    time, then those that round more coarsely, then slow ones, then those that change what the model learns.
    """
    config, on_cuda = plan.config, plan.device.kind == "cuda"
    train, recompute = config.train, config.memory.recompute
    if plan.model_config.n_expert and recompute == "none":
        yield Change(
            {"memory": {"recompute": "experts"}}, "2 of the 9 products of every expert are computed twice"
        )
    micro, per_device = train.micro_batch_size, train.global_batch_size // (plan.devices * config.num_nodes)
    while micro > 1:
        micro = max(size for size in range(1, micro // 2 + 1) if per_device % size == 0)
        yield Change({"train": {"micro_batch_size": micro}}, "smaller products, which use a device less well")
    adamw = config.optimizer.class_path in ADAMW
    if adamw and config.optimizer.class_path != "AdamW8bit":
        yield _optimizer("AdamW8bit", config, "the optimizer's moments in 8 bits")
    if recompute != "blocks":
        yield Change({"memory": {"recompute": "blocks"}}, "every block's forward is computed twice")
    if config.precision != "bf16-true":
        yield Change({"precision": "bf16-true"}, "weights, gradients and activations in bf16")
    if adamw:
        yield _optimizer("AdamW4bit", config, "the optimizer's moments in 4 bits")
    if on_cuda and not config.memory.offload_optimizer and not config.memory.step_in_backward:
        yield Change(
            {"memory": {"offload_optimizer": True}}, "the optimizer's step runs on the host, over the bus"
        )
    length = plan.seq_length
    while length // 2 >= SHORTEST:
        length //= 2
        yield Change(
            {"train": {"max_seq_length": length}}, f"the model learns from windows of {length} tokens"
        )


def fit(
    config: TrainConfig, replan: Callable[[TrainConfig], Plan], possible: Sequence[Change]
) -> tuple[list[Change], Plan]:
    """The changes needed for a plan that fits, cheapest first, and that plan.

    Changes are added one by one until the plan fits; then those it does not need are removed, the costliest first.
    If nothing makes it fit: all changes, and the plan with the least memory.

    Args:
        config: does not fit.
        replan: makes a plan of a changed configuration; takes seconds each time.
        possible: the changes to try, cheapest first.
    """
    taken: list[Change] = []
    plan = replan(config)
    for change in possible:
        if plan.fits:
            break
        taken.append(change)
        plan = replan(applied(taken, config))
    if not plan.fits:
        return taken, plan
    for change in taken[-2::-1]:  # it did not fit without the last one
        without = [other for other in taken if other is not change]
        if _same(applied(without, config), applied(taken, config)):
            taken = without  # a later one replaces it
        elif (other := replan(applied(without, config))).fits:
            taken, plan = without, other
    return taken, plan


def applied(taken: Sequence[Change], config: TrainConfig) -> TrainConfig:
    """A configuration with the changes applied."""
    for change in taken:
        config = change.applied_to(config)
    return config


def settings(taken: Sequence[Change]) -> dict[str, Any]:
    """The changes together, as in YAML."""
    return merge(change.settings for change in taken)


def _optimizer(name: str, config: TrainConfig, cost: str) -> Change:
    kept = {
        k: v for k, v in config.optimizer.init_args.items() if k in ("lr", "betas", "eps", "weight_decay")
    }
    return Change({"optimizer": {"class_path": name, "init_args": kept}}, cost)


def _same(one: TrainConfig, other: TrainConfig) -> bool:
    return bool(as_plain(one) == as_plain(other))
