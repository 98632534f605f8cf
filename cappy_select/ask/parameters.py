"""Parameters of a call: what may be said beside the prompt, and by whom.

Whoever makes a Selector or a provider owns the panel: keys, addresses, limits, prices. Whoever calls it may be
anybody, such as a client of a proxy. A caller says what belongs to the call: OpenAI's own parameters, how to sample,
and further fields of the request's body. What a client library acts upon itself (LiteLLM's `fallbacks` send prompt and
key to another address) never comes from a caller.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

from cappy_select.core.errors import InputError, UnknownArgument
from cappy_select.core.json_text import DEEPEST, is_too_deep


class OpenAIParameters(TypedDict, total=False):
    """What OpenAI's chat completions take beside what is decided here (`FIXED`).

    Source: https://platform.openai.com/docs/api-reference/chat/create
    """

    audio: Any
    frequency_penalty: float | None
    function_call: Any
    functions: Any
    logit_bias: Mapping[str, int] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    metadata: Any
    modalities: Any
    moderation: Any
    parallel_tool_calls: bool | None
    prediction: Any
    presence_penalty: float | None
    prompt_cache_key: str | None
    prompt_cache_options: Any
    prompt_cache_retention: str | None
    reasoning_effort: str | None
    response_format: Any
    safety_identifier: str | None
    seed: int | None
    service_tier: str | None
    stop: Any
    store: bool | None
    temperature: float | None
    tool_choice: Any
    tools: Any
    top_logprobs: int | None
    top_p: float | None
    user: str | None
    verbosity: str | None
    web_search_options: Any


class CallParameters(OpenAIParameters, total=False):
    """What can be given by keyword: OpenAI's own, those of a `Sampling`, and `extra_body` as OpenAI's client has it."""

    beams: int | None
    extra_body: Any
    min_tokens: int | None
    top_k: int | None


class ProviderParameters(CallParameters, total=False):
    """What a provider's owner can give by keyword: the request options of OpenAI's client too."""

    extra_headers: Any
    extra_query: Any


OPENAI = frozenset(OpenAIParameters.__annotations__)
KNOWN = frozenset({*OPENAI, *CallParameters.__annotations__}) - {"extra_body"}

FIXED = frozenset(
    {
        *("model", "models", "messages", "n", "stream", "stream_options", "num_retries", "max_retries"),
        *("timeout", "timeout_s", "request_timeout", "api_key", "api_base", "base_url"),
    }
)
"""What a Selector decides itself: who is asked (`models` is OpenRouter's), what, how often and for how long."""

# What client libraries and proxies act upon, by the parts of its name: where to send, whose key, what it costs, who
# else is told, what is answered instead. LiteLLM's provider knows the whole list of the version that is installed.
_ACTED_UPON = re.compile(
    r"^(_|litellm|mock_|api_|azure_|aws_|vertex_|s3_|gcs_|oci_|watsonx_|langfuse|langsmith|mcp_|proxy|ssl_|custom_llm_)"
    r"|^(base|model)_(url|model|list|info|alias|file|config|group)|^prompt_(id|variables|version|label|environment)$"
    r"|_cost(_|$)|^cost_|_(key|base|url|host|password|credentials?|token_file|provider)$|api_?(key|base)$|^base_?url$"
    r"|(^|_)(secret|secrets|identity|issuer|keycloak|federation|oauth|router|endpoint)(_|$)|token_exchange|service_account"
    r"|fallback|callback|guardrail|credential|headers?$|vector_store|_message_(value|template)$|_continue_message$"
    r"|^(headers|cache|caching|client|client_id|tenant_id|shared_session|hooks?|organization|deployment_id|logger_fn"
    r"|extra_query|no_log)$"
)
_DEEPEST = 100  # levels of a parameter that are looked through
_ALIKE = (  # what is called the one here and the other there
    ("deadline_s", "timeout", "deadline", "timeout_s", "request_timeout"),
    ("samples", "n"),
    ("models", "model"),
    ("api_base", "base_url"),
    ("max_retries", "num_retries"),
    ("params", "model_kwargs"),
)


def given(
    function: Callable[..., Any],
    params: Mapping[str, Any] | None,
    known: Mapping[str, Any],
    *,
    name: str,
    made_with: Callable[..., Any] | None = None,
    keywords: Collection[str] = CallParameters.__annotations__.keys(),
) -> dict[str, Any]:
    """Call parameters given as `params` or by keyword.

    Args:
        function: Took them; its other arguments may have been meant.
        params: Any.
        known: By keyword.
        name: What the caller called.
        made_with: Makes the object that was called; its arguments may have been meant too.
        keywords: What can be given by keyword.

    Raises:
        UnknownArgument: a keyword that is none, with the one that was meant.
        InputError: `params` is no mapping of names, or one stands in both.
    """
    for argument in known:
        if argument not in keywords:
            own = _arguments(function)
            hint = "params" if "extra_body" in keywords else None
            raise UnknownArgument(_unknown(argument, name, [*own, *keywords], _arguments(made_with), hint))
    if params is None:
        return dict(known)
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise InputError(f"params must be a mapping of names to values, got {type(params).__name__}")
    if twice := sorted(known.keys() & params.keys()):
        raise InputError(f"{', '.join(twice)}: given twice, in params and beside it")
    return {**params, **known}


def check_fields(name: str, fields: Collection[str], arguments: Collection[str], *, params: str | None = None) -> None:
    """Make sure that all fields are arguments that there are.

    Args:
        name: What the caller makes or calls, for the message.
        fields: The names that were given.
        arguments: The names that there are.
        params: The argument that call parameters go into; None when there is none.

    Raises:
        UnknownArgument: a field is none; says which one was meant, or that it goes into `params`.
    """
    for argument in fields:
        if argument not in arguments:
            raise UnknownArgument(_unknown(argument, name, arguments, (), params))


def _unknown(argument: str, name: str, own: Collection[str], elsewhere: Collection[str], params: str | None) -> str:
    said = f"{name} has no argument {argument!r}"
    others = [*own, *elsewhere]
    alike = [name for names in _ALIKE if argument in names for name in names if name in others]
    near = [argument] if argument in elsewhere else alike[:1] or get_close_matches(argument, others, n=1)
    if near and near[0] not in own:
        return f"{said}: {near[0]!r} is set at the making, not in a call"
    if argument in KNOWN and params:
        near = []  # a field of another name is not what was meant
    if near:
        said += f": did you mean {near[0]!r}?"
    if argument in FIXED or _is_acted_upon(argument) or params is None:
        return said
    said += "" if near else "."
    return f"{said} A parameter of the models goes into {params}={{{argument!r}: ...}}"


def _arguments(function: Callable[..., Any] | None) -> list[str]:
    if function is None:
        return []
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD][1:]


def owned(params: Mapping[str, Any], made_with: Callable[..., Any] | None = None) -> dict[str, Any]:
    """The owner's parameters of every call, those in an `extra_body` too.

    Raises UnknownArgument for one that is, or is nearly, an argument of `made_with`, InputError for one that is a
    provider's.
    """
    found = flat(params)
    _refuse_fixed(found)
    _refuse_ours(found, made_with)
    if wrong := sorted(name for name in found if name not in KNOWN and _is_acted_upon(name)):
        raise InputError(
            f"{', '.join(wrong)} can't be a call parameter: it is not for the models. Give it to a provider: "
            f"LiteLLMProvider(MODEL, params={{{wrong[0]!r}: ...}})"
        )
    return found


def callers(
    params: Mapping[str, Any], allowed: Collection[str] | None, made_with: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """A caller's parameters, those in an `extra_body` too.

    Args:
        params: As they came.
        allowed: Beyond OpenAI's own and those of a `Sampling`; None for all that nobody acts upon.
        made_with: Makes the object that was called: its own arguments are no parameters of the models.

    Raises UnknownArgument for one that is set at the making, InputError for one that is not the caller's to give.
    """
    found = flat(params)
    _refuse_fixed(found)
    _refuse_ours((name for name in found if allowed is None or name not in allowed), made_with)
    own = {squashed(name): name for name in KNOWN}
    for name, value in found.items():
        if name in KNOWN:
            if isinstance(value, str):
                _refuse_environment(name, value)
            continue
        if squashed(name) in own:
            raise InputError(f"{name} can't be a call parameter: write {own[squashed(name)]}")
        if allowed is not None and name in allowed:
            continue
        if _is_acted_upon(name):
            raise InputError(f"{name} can't be a call parameter: only the panel's owner can set it")
        if allowed is not None:
            raise InputError(
                f"{name} can't be a call parameter: beyond OpenAI's own the panel's owner allows "
                f"{', '.join(sorted(allowed)) or 'none'} (allowed_params)"
            )
        for key, text in _within(name, value):
            if _is_acted_upon(key):
                raise InputError(f"{name} can't have {key} in it: only the panel's owner can set it")
            _refuse_environment(name, text)
    return found


def check_allowed(allowed: Collection[str] | None) -> frozenset[str] | None:
    """Names that an owner allows callers. Raises InputError for what is none, or never a caller's."""
    if allowed is None:
        return None
    if isinstance(allowed, str) or not all(isinstance(name, str) for name in allowed):
        raise InputError(f"allowed_params must be a list of names, got {allowed!r}")
    if never := sorted(name for name in allowed if name not in KNOWN and (name in FIXED or _is_acted_upon(name))):
        raise InputError(f"allowed_params: {', '.join(never)} can never come from a caller")
    return frozenset(allowed)


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with those of an `extra_body`, and of one in it, beside them; the outer win. Raises InputError."""
    found: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if odd := [name for name in params if not isinstance(name, str)]:
            raise InputError(f"a call parameter has a name, got {odd[0]!r:.40}")
        inner: dict[str, Any] = {}
        for name, value in params.items():
            if squashed(name) != "extrabody":
                found.setdefault(name, value)
            elif isinstance(value, Mapping):
                inner |= value
            elif value is not None:
                raise InputError(f"extra_body must be a mapping, got {type(value).__name__}")
        if not inner:
            break
        params = inner
    else:
        raise InputError(f"extra_body lies in itself more than {_DEEPEST} times")
    if deep := sorted(name for name, value in found.items() if is_too_deep(value)):
        raise InputError(f"{', '.join(deep)}: nested more than {DEEPEST} deep")
    return found


def all_of(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every parameter with its value, those of an `extra_body` and of one in it too, though others win."""
    bodies: list[Mapping[Any, Any]] = [params]
    for _ in range(_DEEPEST):
        inner: list[Mapping[Any, Any]] = []
        for body in bodies:
            for name, value in body.items():
                if squashed(str(name)) != "extrabody":
                    yield str(name), value
                elif isinstance(value, Mapping):
                    inner.append(value)
        if not (bodies := inner):
            return


def _refuse_fixed(params: Mapping[str, Any]) -> None:
    # In any spelling: servers in Go read `Model` as `model`.
    if fixed := sorted(name for name in params if squashed(name) in _FIXED):
        raise InputError(f"{', '.join(fixed)} can't be a call parameter: set it when making the Selector or provider")


def _refuse_ours(names: Iterable[str], made_with: Callable[..., Any] | None) -> None:
    """A limit among the parameters would limit nothing, and reach the models."""
    ours = {_stem(name): name for name in _arguments(made_with) if name not in KNOWN}
    for name in names:
        if name not in KNOWN and (meant := ours.get(_stem(name))):
            raise UnknownArgument(
                f"{name} can't be a call parameter: {meant!r} is set at the making ({meant}=...), not in params"
            )


def _stem(name: str) -> str:
    """Without what a slip adds or leaves out: `max_costs` and `max_cost`, `deadline` and `deadline_s`."""
    return squashed(name).rstrip("s")


def _refuse_environment(name: str, text: str) -> None:
    if text.strip().casefold().startswith("os.environ"):
        raise InputError(f"{name} can't name a variable of the server's environment")


def _is_acted_upon(name: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return _ACTED_UPON.search(re.sub(r"[\W_]+", "_", snake).casefold()) is not None


def squashed(name: str) -> str:
    """A name whatever way it is spelled."""
    return re.sub(r"[\W_]", "", name).casefold()


_FIXED = frozenset(map(squashed, FIXED))


def _within(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every key and text in a value: (key, text), one of them empty. Raises InputError for one that is too deep."""
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for part in level:
            if isinstance(part, str):
                yield "", part
            elif isinstance(part, Mapping):
                for key, inner in part.items():
                    yield str(key), ""
                    below.append(inner)
            elif isinstance(part, list | tuple | set):
                below += part
        if not below:
            return
        level = below
    raise InputError(f"{name} is nested more than {_DEEPEST} deep")
