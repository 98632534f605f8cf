"""One prompt to many answers: requests, providers, retries, the bill. It must never score."""

from cappy_select.ask.complete import (
    Complete,
)
from cappy_select.ask.finish_reasons import (
    FINISH_REASONS,
    graver,
    meaning_of,
)
from cappy_select.ask.in_context import (
    Example,
    InContext,
)
from cappy_select.ask.parameters import (
    FIXED,
    check_fields,
)
from cappy_select.ask.prices import (
    estimated_usage,
)
from cappy_select.ask.providers import (
    Capabilities,
    LiteLLMProvider,
    OpenAIProvider,
    Provider,
    ReplayProvider,
    TransformersProvider,
)
from cappy_select.ask.providers.content import (
    NO_FORM,
    reasons_in,
)
from cappy_select.ask.providers.failures import (
    failure_from,
    failure_of,
)
from cappy_select.ask.providers.litellm_own import (
    names as litellms_own,
)
from cappy_select.ask.providers.openai_format import (
    TokenPrices,
)
from cappy_select.ask.recorded import (
    Recorded,
    RecordedInstance,
    read_recorded,
)
from cappy_select.ask.sampling import (
    MAX_SAMPLES,
    Plan,
    Sampling,
)
from cappy_select.ask.streaming import (
    pieces_of,
)

__all__ = [
    "FINISH_REASONS",
    "FIXED",
    "MAX_SAMPLES",
    "NO_FORM",
    "Capabilities",
    "Complete",
    "Example",
    "InContext",
    "LiteLLMProvider",
    "OpenAIProvider",
    "Plan",
    "Provider",
    "Recorded",
    "RecordedInstance",
    "ReplayProvider",
    "Sampling",
    "TokenPrices",
    "TransformersProvider",
    "check_fields",
    "estimated_usage",
    "failure_from",
    "failure_of",
    "graver",
    "litellms_own",
    "meaning_of",
    "pieces_of",
    "read_recorded",
    "reasons_in",
]
