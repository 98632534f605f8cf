"""Ask LLMs for several answers, score each on your own machine, return the best one unchanged."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import cappy_select.core.telemetry_off  # noqa: F401 - first: what others send home is switched off before they are imported

if TYPE_CHECKING:  # at run time each name is imported when it is asked for: a scorer needs no client of an LLM
    from cappy_select.ask.in_context import Example, InContext
    from cappy_select.ask.providers import (
        LiteLLMProvider,
        OpenAIProvider,
        Provider,
        ReplayProvider,
        TransformersProvider,
    )
    from cappy_select.ask.sampling import Plan, Sampling
    from cappy_select.core.errors import (
        BundleError,
        CappyError,
        InputError,
        MissingExtra,
        NoCandidates,
        NoGoodAnswer,
        ProviderError,
        StrategyError,
        TruncationWarning,
        UnknownArgument,
    )
    from cappy_select.core.types import (
        Candidate,
        Delta,
        Request,
        Selection,
        Usage,
    )
    from cappy_select.scorer import ScoreCache, Scorer
    from cappy_select.select.gates import (
        FinishReason,
        Gate,
        JsonSchema,
        Matches,
        ToolArguments,
    )
    from cappy_select.select.selector import Selector
    from cappy_select.select.strategies import (
        Argmax,
        Cluster,
        MinimumBayesRisk,
        QualityCost,
        SelfScore,
        Strategy,
        Vote,
        WeightedVote,
    )

__version__ = "0.1.0"

__all__ = [
    "Argmax",
    "BundleError",
    "Candidate",
    "CappyError",
    "Cluster",
    "Delta",
    "Example",
    "FinishReason",
    "Gate",
    "InContext",
    "InputError",
    "JsonSchema",
    "LiteLLMProvider",
    "Matches",
    "MinimumBayesRisk",
    "MissingExtra",
    "NoCandidates",
    "NoGoodAnswer",
    "OpenAIProvider",
    "Plan",
    "Provider",
    "ProviderError",
    "QualityCost",
    "ReplayProvider",
    "Request",
    "Sampling",
    "ScoreCache",
    "Scorer",
    "Selection",
    "Selector",
    "SelfScore",
    "Strategy",
    "StrategyError",
    "ToolArguments",
    "TransformersProvider",
    "TruncationWarning",
    "UnknownArgument",
    "Usage",
    "Vote",
    "WeightedVote",
]

_ROOMS = ("core", "scorer", "ask", "select")  # where they live, in the order of imports


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"cappy_select.{name}")
    if name in __all__:
        for room in _ROOMS:
            found = getattr(import_module(f"cappy_select.{room}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
