"""The figures of a routing explorer, as its page shows them and as its JSON holds them.

Shape suffixes: L MoE layers, E experts, K experts per token, C categories of a grouping, T tokens that are shown.
"""

from dataclasses import dataclass, field

SCHEMA = "litmoe-routing/1"
"""Names this format in the JSON; a change that breaks a reader raises the number."""


ENOUGH_TOKENS = 1000
"""A shorter text says nothing about structure."""


@dataclass
class TextFacts:
    """The text that the figures were measured on."""

    source: str
    """Where it is from."""
    tokens: int
    documents: int
    windows: int
    loss: float
    """Mean over all tokens, nats per token."""


@dataclass
class Grouping:
    """A way to divide tokens into kinds, such as by position in the document."""

    name: str
    title: str
    categories_C: list[str]
    tokens_C: list[int]
    """Tokens of the text in each category."""


@dataclass
class Structure:
    """How much the kind of a token says about its expert: mutual information, against shuffled weights.

    The baseline is the same model on the same text with the entries of every weight matrix shuffled. Of an
    untrained model that is another draw; see `litmoe.report.routing.structure`.
    """

    bits: float
    """Measured."""
    shuffled_mean: float
    shuffled_high: float
    """The highest of all shuffles."""
    shuffles: int
    found: bool
    """Clear of all shuffles, in this layer and in all layers together."""


@dataclass
class TypicalToken:
    """A token that an expert gets more often than its load would say."""

    text: str
    count: int
    """Times that it goes to this expert."""
    share: float
    """Share of its occurrences that go there."""
    lift: float
    """That share over the share of all tokens."""
    before: str = ""
    after: str = ""
    """Text around one occurrence: the one with the highest gate weight."""


@dataclass
class Knockout:
    """How much the loss rises when an expert may not be chosen, and its tokens go to their next best."""

    rise: float
    """Nats per token, mean over the tokens of the windows measured."""
    low: float
    high: float
    """Ends of the 95 % confidence interval, from the spread over windows."""


@dataclass
class Expert:
    """One expert of a layer."""

    load: float
    """Share of the layer's assignments; all experts' sum to 1."""
    first: float
    """Share of the tokens whose first choice it is."""
    tokens: list[TypicalToken] = field(default_factory=list)
    without: Knockout | None = None


@dataclass
class Layer:
    """One MoE layer."""

    layer: int
    """Number of the block in the model, from 0."""
    effective_experts: float
    """exp(entropy of the load): as many experts with an even load are as uneven; E is even."""
    entropy: float
    """Of the router's distribution for a token, mean, nats."""
    state: str
    """``collapsed``, ``structure``, ``no structure``; ``unknown`` without a baseline to compare with."""
    experts: list[Expert]
    shares: dict[str, list[list[float]]]
    """By grouping: share of a category's assignments that each expert gets, [C][E]."""
    structure: dict[str, Structure]
    """By grouping."""
    pairs: list[list[float | None]] | None
    """How often two experts share a token, over what their loads alone would give, [E][E]; None for K = 1 or where
    there are too many experts to show."""


@dataclass
class Flow:
    """From the first choice in one layer to the first choice in the next."""

    layer: int
    to_layer: int
    bits: float
    """Mutual information of the two choices."""
    bits_same_token: float
    """The same between different occurrences of one token: what the token alone explains."""
    bits_shuffled: float
    """The same between tokens drawn at random: what chance gives."""
    shares: list[list[float]] | None
    """Share of the tokens of each expert that go to each expert of the next layer, [E][E]; None where there
    are too many to show."""


@dataclass
class Change:
    """How far routing moved between two checkpoints of a run."""

    step: int | None
    to_step: int | None
    name: str
    to_name: str
    changed_L: list[float]
    """Share of the tokens whose first choice differs."""
    by_chance_L: list[float]
    """What two unrelated routers with these loads would give."""


@dataclass
class ShownText:
    """The text with its experts, token by token."""

    pieces_T: list[str]
    loss_T: list[float]
    """Nats, of predicting the token."""
    experts_LKT: list[list[list[int]]]
    """The K chosen experts per layer, best first."""
    weights_LKT: list[list[list[float]]]
    """Their gate weights."""
    starts: list[int]
    """Where a new document begins."""
    sources: list[str]
    """Where each of these documents is from; empty where the text does not say."""


@dataclass
class RoutingFigures:
    """All that the explorer shows."""

    checkpoint: str
    name: str
    step: int | None
    n_experts: int
    experts_per_token: int
    text: TextFacts
    groupings: list[Grouping]
    layers: list[Layer]
    """Of a model with very many experts only some, evenly spread."""
    layers_in_all: int
    flow: list[Flow]
    changes: list[Change]
    shown: ShownText
    structure_found: bool
    """Whether any layer has structure in any grouping."""
    collapsed_layers: list[int]
    verdict: list[str]
    """What the figures say, in sentences."""
    knockout_windows: int
    """Windows that the rise of the loss was measured on; 0: it was not."""
