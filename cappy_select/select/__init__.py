"""Many answers to one: gates, scores, strategies. It must never open a socket or a file."""

from cappy_select.select.gates import (
    AS_ASKED,
    FinishReason,
    Gate,
    JsonSchema,
    Matches,
    ResponseFormat,
    ToolArguments,
    reason_against,
)
from cappy_select.select.selector import (
    Selector,
)
from cappy_select.select.strategies import (
    Argmax,
    Cluster,
    MinimumBayesRisk,
    QualityCost,
    SelfScore,
    Strategy,
    Vote,
    WeightedVote,
    strategy_named,
)

__all__ = [
    "AS_ASKED",
    "Argmax",
    "Cluster",
    "FinishReason",
    "Gate",
    "JsonSchema",
    "Matches",
    "MinimumBayesRisk",
    "QualityCost",
    "ResponseFormat",
    "Selector",
    "SelfScore",
    "Strategy",
    "ToolArguments",
    "Vote",
    "WeightedVote",
    "reason_against",
    "strategy_named",
]
