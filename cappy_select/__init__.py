"""Ask LLMs for several answers, score each on your own machine, return the best one unchanged."""

import cappy_select.core.telemetry  # noqa: F401 - first: what others send home is switched off before they are imported
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
