"""What a person may not expect of a model and the way its experts are balanced: possible, and said."""

from litgpt import Config

from litmoe.config import MoEArgs


def advice(config: Config, moe: MoEArgs) -> list[str]:
    """Lines for a person about settings that work, but not as their names suggest; none if all do.

    Args:
        config: of the model, with the router that it is trained with.
        moe: how its experts are balanced.
    """
    if config.mlp_class_name != "LLaMAMoE":
        return (
            [f"moe.balance {moe.balance} has no effect: the model is dense"] if moe.balance == "bias" else []
        )
    n_expert, per_token = config.n_expert, config.n_expert_per_token
    if n_expert == 1:
        return ["n_expert is 1: the model is a dense one, with a router that has nothing to choose"]
    if per_token == n_expert:
        nothing = f"; moe.balance {moe.balance} has nothing to balance" if moe.balance != "none" else ""
        return [f"n_expert_per_token is n_expert {n_expert}: every token goes to all experts{nothing}"]
    lines = []
    normalised = not config.n_expert_groups or config.norm_topk_prob
    if per_token == 1 and normalised:
        by_losses = moe.balance == "switch" and moe.switch_coefficient > 0
        learns = "learns from the balance losses only" if by_losses else "never learns which expert to choose"
        lines.append(
            "n_expert_per_token is 1 and the weights of chosen experts are normalised, so its weight is always 1: "
            f"the router gets no gradient from the text, and {learns}; use 2 or more experts per token, or set "
            "n_expert_groups with norm_topk_prob: false"
        )
    strength = {"switch": "switch_coefficient", "bias": "bias_update_speed"}.get(moe.balance)
    if strength is not None and not getattr(moe, strength):
        lines.append(
            f"moe.{strength} is 0: nothing balances the experts, as with moe.balance: none, and one or two of "
            "them may take nearly all tokens"
        )
    return lines
