"""Ask LLMs for several answers, score each on your own machine, return the best one unchanged."""

import cappy_select.telemetry  # noqa: F401 - first: what others send home is switched off before they are imported
from cappy_select.errors import (
    BundleDamaged,
    BundleError,
    BundleFormatError,
    BundleNotFound,
    CappyError,
    DataError,
    ExportError,
    InputError,
    MissingExtra,
    NoCandidates,
    NoGoodAnswer,
    ProviderError,
    StrategyError,
    TruncationWarning,
)
from cappy_select.gates import FinishReason, Gate, JsonSchema, Matches, ResponseFormat, ToolArguments
from cappy_select.icl import Example, InContext
from cappy_select.providers import (
    Declaring,
    LiteLLMProvider,
    OpenAIProvider,
    Priced,
    Provider,
    ReplayProvider,
    Streaming,
    TransformersProvider,
    Windowed,
)
from cappy_select.sampling import Plan, Sampling
from cappy_select.scorer import Ranked, ScoreCache, Scorer
from cappy_select.select import Selector
from cappy_select.strategies import (
    Argmax,
    Cluster,
    MinimumBayesRisk,
    QualityCost,
    SelfScore,
    Strategy,
    Vote,
    WeightedVote,
)
from cappy_select.types import Candidate, Delta, Downgrade, Failure, Instruction, Request, Selection, Usage

__version__ = "0.1.0"

__all__ = [
    "Argmax",
    "BundleDamaged",
    "BundleError",
    "BundleFormatError",
    "BundleNotFound",
    "Candidate",
    "CappyError",
    "Cluster",
    "DataError",
    "Declaring",
    "Delta",
    "Downgrade",
    "Example",
    "ExportError",
    "Failure",
    "FinishReason",
    "Gate",
    "InContext",
    "InputError",
    "Instruction",
    "JsonSchema",
    "LiteLLMProvider",
    "Matches",
    "MinimumBayesRisk",
    "MissingExtra",
    "NoCandidates",
    "NoGoodAnswer",
    "OpenAIProvider",
    "Plan",
    "Priced",
    "Provider",
    "ProviderError",
    "QualityCost",
    "Ranked",
    "ReplayProvider",
    "Request",
    "ResponseFormat",
    "Sampling",
    "ScoreCache",
    "Scorer",
    "Selection",
    "Selector",
    "SelfScore",
    "Strategy",
    "StrategyError",
    "Streaming",
    "ToolArguments",
    "TransformersProvider",
    "TruncationWarning",
    "Usage",
    "Vote",
    "WeightedVote",
    "Windowed",
]
