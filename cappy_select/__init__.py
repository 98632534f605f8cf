"""Ask LLMs for several answers, score each on your own machine, return the best one unchanged."""

from cappy_select.errors import (
    BundleDamaged,
    BundleError,
    BundleFormatError,
    BundleNotFound,
    CappyError,
    ExportError,
    InputError,
    MissingExtra,
    NoCandidates,
    ProviderError,
    TruncationWarning,
)
from cappy_select.providers import LiteLLMProvider, Priced, Provider, ReplayProvider
from cappy_select.scorer import Ranked, ScoreCache, Scorer
from cappy_select.select import Selector
from cappy_select.strategies import Argmax, Strategy
from cappy_select.types import Candidate, Failure, Instruction, Request, Selection, Usage

__version__ = "0.1.0"

__all__ = [
    "Argmax",
    "BundleDamaged",
    "BundleError",
    "BundleFormatError",
    "BundleNotFound",
    "Candidate",
    "CappyError",
    "ExportError",
    "Failure",
    "InputError",
    "Instruction",
    "LiteLLMProvider",
    "MissingExtra",
    "NoCandidates",
    "Priced",
    "Provider",
    "ProviderError",
    "Ranked",
    "ReplayProvider",
    "Request",
    "ScoreCache",
    "Scorer",
    "Selection",
    "Selector",
    "Strategy",
    "TruncationWarning",
    "Usage",
]
