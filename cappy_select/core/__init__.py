"""What every room stands on: values, errors, threads, bounded parsing. It must never know an LLM or a model."""

from cappy_select.core import (
    background,
)
from cappy_select.core.characters import (
    without_halves,
)
from cappy_select.core.copies import (
    check_pickles,
    made_again,
)
from cappy_select.core.errors import (
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
    UnknownArgument,
    UnscorableWarning,
    validation_message,
)
from cappy_select.core.figures import (
    dollars_of,
    tokens_of,
)
from cappy_select.core.masking import (
    credentials_in,
    masked,
)
from cappy_select.core.types import (
    RETRYABLE,
    Candidate,
    CutSide,
    Delta,
    Downgrade,
    Failure,
    FailureKind,
    Instruction,
    InstructionPolicy,
    Message,
    Prompt,
    Request,
    Selection,
    Usage,
    content_text,
)

__all__ = [
    "RETRYABLE",
    "BundleDamaged",
    "BundleError",
    "BundleFormatError",
    "BundleNotFound",
    "Candidate",
    "CappyError",
    "CutSide",
    "DataError",
    "Delta",
    "Downgrade",
    "ExportError",
    "Failure",
    "FailureKind",
    "InputError",
    "Instruction",
    "InstructionPolicy",
    "Message",
    "MissingExtra",
    "NoCandidates",
    "NoGoodAnswer",
    "Prompt",
    "ProviderError",
    "Request",
    "Selection",
    "StrategyError",
    "TruncationWarning",
    "UnknownArgument",
    "UnscorableWarning",
    "Usage",
    "background",
    "check_pickles",
    "content_text",
    "credentials_in",
    "dollars_of",
    "made_again",
    "masked",
    "tokens_of",
    "validation_message",
    "without_halves",
]
