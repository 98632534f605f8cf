"""Many answers to one: gates, scores, strategies. It must never open a socket."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from cappy_select.select.panels import Panel, PanelModel, load_panels

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


def __getattr__(name: str) -> Any:
    """Panels are files of YAML, which few programs read: their module is loaded when it is asked for."""
    if name in ("Panel", "PanelModel", "load_panels"):
        return getattr(import_module("cappy_select.select.panels"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
