"""The tokens that are typical of an expert, each with a place where it stands.

Shape suffixes: N tokens of the text, K experts per token, E experts, V tokens of the vocabulary that occur.
"""

import numpy as np

from litmoe.report.routing.figures import TypicalToken
from litmoe.report.routing.kinds import Pieces
from litmoe.report.routing.text import Text

SHOWN = 10

_LEAST = 4  # occurrences; what is rarer may go anywhere
_CONTEXT = 8  # tokens on either side
_LONGEST = 60  # characters on either side


def typical_tokens(
    text: Text, pieces: Pieces, ids_NK: np.ndarray, weights_NK: np.ndarray, n_experts: int
) -> list[list[TypicalToken]]:
    """For every expert of a layer, the tokens whose share there is the most above that of all tokens.

    Ranked by what they contribute to the log-likelihood ratio of token and expert (Dunning's G), which weighs
    how far a share is off and how many occurrences say so.
    """
    types_V, type_N, count_V = np.unique(text.ids_N, return_inverse=True, return_counts=True)
    goes_VE = np.zeros((len(types_V), n_experts))
    for choice in range(ids_NK.shape[1]):
        np.add.at(goes_VE, (type_N, ids_NK[:, choice]), 1)
    share_VE = goes_VE / count_V[:, None]
    overall_E = goes_VE.sum(0) / len(type_N)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift_VE = np.where(overall_E > 0, share_VE / overall_E, 0.0)
        gain_VE = np.where(lift_VE > 1, goes_VE * np.log(np.maximum(lift_VE, 1e-12)), 0.0)
    gain_VE[count_V < _LEAST] = 0.0
    found = []
    for expert in range(n_experts):
        best = np.argsort(-gain_VE[:, expert], kind="stable")[:SHOWN]
        tokens = []
        for at in best[gain_VE[best, expert] > 0]:
            here = np.flatnonzero((type_N == at) & (ids_NK == expert).any(1))
            weight = np.where(ids_NK[here] == expert, weights_NK[here], 0).max(1)
            before, after = _around(text, pieces, int(here[weight.argmax()]))
            tokens.append(
                TypicalToken(
                    text=pieces(int(types_V[at])),
                    count=int(goes_VE[at, expert]),
                    share=float(share_VE[at, expert]),
                    lift=float(lift_VE[at, expert]),
                    before=before,
                    after=after,
                )
            )
        found.append(tokens)
    return found


def _around(text: Text, pieces: Pieces, at: int) -> tuple[str, str]:
    """The text before and after a token, in its document."""
    first, end = max(0, at - _CONTEXT), min(len(text.ids_N), at + 1 + _CONTEXT)
    inside = text.document_N[first:end] == text.document_N[at]
    words = [
        pieces(int(token)) if ok else "" for token, ok in zip(text.ids_N[first:end], inside, strict=True)
    ]
    before, after = "".join(words[: at - first]), "".join(words[at - first + 1 :])
    return before[-_LONGEST:], after[:_LONGEST]
