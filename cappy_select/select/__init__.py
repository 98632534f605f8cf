"""Many answers to one: gates, scores, strategies. It must never open a socket."""

from cappy_select.select.config import SelectorConfig, limit
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
from cappy_select.select.observers import Finished, Observer
from cappy_select.select.panels import Panel, PanelModel, load_panels
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
    "Finished",
    "Gate",
    "JsonSchema",
    "Matches",
    "MinimumBayesRisk",
    "Observer",
    "Panel",
    "PanelModel",
    "QualityCost",
    "ResponseFormat",
    "Selector",
    "SelectorConfig",
    "SelfScore",
    "Strategy",
    "ToolArguments",
    "Vote",
    "WeightedVote",
    "limit",
    "load_panels",
    "reason_against",
    "strategy_named",
]
