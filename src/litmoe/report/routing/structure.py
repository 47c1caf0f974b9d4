"""Is there structure in the routing, or only chance? Mutual information against shuffled weights; flow; pairs.

An untrained router is no uniform noise: it sends a token nearly always to the same experts, and its choice
shifts with the text around. So each kind of token and each source of text looks a little typical of some
experts, by accident. The baseline is the same model with the entries of every weight matrix shuffled, on the
same text: of an untrained model it is just another draw, so that the measured figure lies anywhere among the
shuffled ones; training has to lift it clear of them.

Shape suffixes: N tokens of the text, L MoE layers, K experts per token, E experts, C categories, V tokens of the
vocabulary that occur, R shuffles.
"""

from collections.abc import Sequence

import numpy as np
import torch

from litmoe.model.gpt import GPT
from litmoe.report.routing.figures import Structure
from litmoe.report.routing.kinds import Grouped

FEWEST_SHUFFLES = 8
TIMES_HIGHEST = 2.0
"""Structure is more than twice the highest of the shuffles. Of 760 groupings of untrained small models none had as
much over 12 shuffles (the highest had 1.98 times), and 1 in 13 was above the highest, as it has to be."""

_SMALLEST = 0.002  # bits; less than that is nothing to look at


@torch.no_grad()
def shuffle_weights(model: GPT, generator: torch.Generator) -> None:
    """Shuffle the entries of every weight matrix of a model, in place. Vectors, as those of norms, stay."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            flat = parameter.view(-1)
            order = torch.randperm(flat.numel(), generator=generator)
            flat.copy_(flat[order.to(flat.device)])


def bits_by_grouping(
    groupings: Sequence[Grouped], ids_LNK: np.ndarray, n_experts: int
) -> dict[str, np.ndarray]:
    """What each grouping says about the experts: mutual information in bits, (L,)."""
    return {
        grouping.name: np.array(
            [
                mutual_information(counts(category_N, ids_NK, len(grouping.categories_C), n_experts))
                for ids_NK in ids_LNK
            ]
        )
        for grouping, category_N in groupings
    }


def against_shuffles(
    measured: dict[str, np.ndarray], shuffled: Sequence[dict[str, np.ndarray]]
) -> list[dict[str, Structure]]:
    """The structure of every layer by grouping.

    A grouping has structure in a layer if all layers together are clear of the shuffles, and this one is too. With
    fewer than ``FEWEST_SHUFFLES`` nothing is found.
    """
    n_layers = len(next(iter(measured.values())))
    found: list[dict[str, Structure]] = [{} for _ in range(n_layers)]
    for name, bits_L in measured.items():
        shuffled_RL = np.array([one[name] for one in shuffled]).reshape(-1, n_layers)
        on_the_whole = _is_clear(bits_L.mean(), shuffled_RL.mean(1))
        for layer in range(n_layers):
            shuffled_R = shuffled_RL[:, layer]
            found[layer][name] = Structure(
                bits=float(bits_L[layer]),
                shuffled_mean=float(shuffled_R.mean()) if len(shuffled_R) else 0.0,
                shuffled_high=float(shuffled_R.max(initial=0.0)),
                shuffles=len(shuffled_R),
                found=on_the_whole and _is_clear(bits_L[layer], shuffled_R),
            )
    return found


def _is_clear(measured: float, shuffled_R: np.ndarray) -> bool:
    enough = len(shuffled_R) >= FEWEST_SHUFFLES
    return bool(enough and measured > max(TIMES_HIGHEST * shuffled_R.max(), shuffled_R.mean() + _SMALLEST))


def mutual_information(table_CE: np.ndarray) -> float:
    """Of the rows and columns of a table of counts, in bits; 0 for an empty one."""
    total = table_CE.sum()
    if total == 0:
        return 0.0
    p_CE = table_CE / total
    independent_CE = p_CE.sum(1, keepdims=True) * p_CE.sum(0, keepdims=True)
    used = p_CE > 0
    return float((p_CE[used] * np.log2(p_CE[used] / independent_CE[used])).sum())


def counts(category_N: np.ndarray, ids_NK: np.ndarray, n_categories: int, n_experts: int) -> np.ndarray:
    """Assignments of each category to each expert, (C, E); tokens in no category do not count."""
    inside = category_N >= 0
    cell = category_N[inside, None].astype(np.int64) * n_experts + ids_NK[inside]
    return np.bincount(cell.ravel(), minlength=n_categories * n_experts).reshape(n_categories, n_experts)


def flow_table(first_N: np.ndarray, next_N: np.ndarray, n_experts: int) -> np.ndarray:
    """How many tokens go from each expert to each expert of the next layer, (E, E)."""
    return counts(first_N, next_N[:, None], n_experts, n_experts)


def other_occurrence(ids_N: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Another occurrence of the same token for each, drawn at random; -1 where there is none, (N,)."""
    _, type_N, count_V = np.unique(ids_N, return_inverse=True, return_counts=True)
    occurrences_N = np.argsort(type_N, kind="stable")
    first_V = np.cumsum(count_V) - count_V
    rank_N = np.empty(len(type_N), dtype=np.int64)
    rank_N[occurrences_N] = np.arange(len(type_N)) - np.repeat(first_V, count_V)
    count_N = count_V[type_N]
    away_N = 1 + (draw.random(len(count_N)) * np.maximum(count_N - 1, 1)).astype(np.int64)
    other_N = occurrences_N[first_V[type_N] + (rank_N + away_N) % count_N]
    return np.where(count_N > 1, other_N, -1)


def pair_lift(ids_NK: np.ndarray, n_experts: int) -> np.ndarray:
    """How often two experts share a token, over what their loads alone would give, (E, E); NaN where that is less
    than half a token.

    Expected is the symmetric table with an empty diagonal that has the measured sums and is otherwise a product of
    one factor per expert, found by Sinkhorn's iteration.
    """
    together_EE = np.zeros((n_experts, n_experts))
    for one in range(ids_NK.shape[1]):
        for other in range(ids_NK.shape[1]):
            if one != other:
                np.add.at(together_EE, (ids_NK[:, one], ids_NK[:, other]), 1)
    sums_E, off_diagonal = together_EE.sum(1), 1 - np.eye(n_experts)
    factor_E = np.sqrt(sums_E)
    for _ in range(200):
        factor_E = np.sqrt(factor_E * sums_E / np.maximum(off_diagonal @ factor_E, 1e-12))
    expected_EE = factor_E[:, None] * factor_E[None, :] * off_diagonal
    return np.where(expected_EE > 0.5, together_EE / np.maximum(expected_EE, 1e-12), np.nan)


def effective_experts(load_E: np.ndarray) -> float:
    """exp(entropy) of a load that sums to 1."""
    used = load_E[load_E > 0]
    return float(np.exp(-(used * np.log(used)).sum()))


def is_collapsed(load_E: np.ndarray, experts_per_token: int) -> bool:
    """Whether hardly more experts work than each token takes in any case.

    That is: fewer effective experts than K plus 15 % of the others.
    """
    spare = len(load_E) - experts_per_token
    return spare > 0 and effective_experts(load_E) < experts_per_token + 0.15 * spare
