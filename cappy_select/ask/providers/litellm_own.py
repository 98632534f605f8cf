"""What LiteLLM acts upon itself, and so never takes from a caller: the list of the version that is installed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from cappy_select.ask.parameters import KNOWN, flat, squashed
from cappy_select.ask.sampling import PARAMETERS
from cappy_select.core.errors import InputError

# LiteLLM's arguments that say something to a model, and nothing to LiteLLM.
_TO_THE_MODEL = frozenset({"context_management", "include_server_side_tool_invocations", "thinking"})


class Names(NamedTuple):
    """Arguments of `litellm.acompletion`: what a caller may set, and what LiteLLM acts upon itself."""

    callers: frozenset[str]
    own: frozenset[str]


@cache
def names() -> Names:
    """Of the installed version. `metadata` is OpenAI's too; as an argument it would be LiteLLM's.

    Returns:
        Names of arguments: `callers` may be set by a caller, `own` LiteLLM acts upon itself. LiteLLM is imported (about
        2 s) in the first call.
    """
    import litellm
    from litellm import constants
    from litellm.types.utils import all_litellm_params

    arguments = frozenset(inspect.signature(litellm.acompletion).parameters) - {"kwargs"}
    lists = ("OPENAI_CHAT_COMPLETION_PARAMS", "DEFAULT_CHAT_COMPLETION_PARAM_VALUES")
    listed = {name for of in lists for name in getattr(constants, of, ())}
    every = frozenset({*arguments, *all_litellm_params, *listed})
    return Names(KNOWN & arguments - {"metadata"} | PARAMETERS, every - KNOWN - _TO_THE_MODEL - {"extra_body"})


@cache
def _own() -> frozenset[str]:
    return frozenset(map(squashed, names().own))


def acted_upon(params: Mapping[str, Any]) -> set[str]:
    """Which parameters LiteLLM would act upon, in whatever spelling: its own, and tools that it would run itself."""
    found = {name for name in params if name not in KNOWN and squashed(name) in _own()}
    tools = params.get("tools")
    if isinstance(tools, Iterable) and any(map(_runs_itself, tools)):
        found.add("tools (an MCP server or store of LiteLLM's own)")
    return found


def arguments(params: Mapping[str, Any], allowed: Iterable[str]) -> dict[str, Any]:
    """A request's parameters as arguments of `litellm.acompletion`. What is not known, nor the owner's or `allowed`
    by the owner, goes into the `extra_body` and so no further than into the request. Raises InputError."""
    found = flat(params)
    if wrong := acted_upon(found):
        raise InputError(f"{', '.join(sorted(wrong))} can't be a call parameter: LiteLLM acts upon it itself")
    open_to = names().callers | set(allowed) - KNOWN
    given = {name: value for name, value in found.items() if name in open_to}
    body = {name: value for name, value in found.items() if name not in open_to}
    return given | ({"extra_body": body} if body else {})


# A proxy is at work in this process, with servers of its own and the rights of its own.
_GATEWAY = "litellm.proxy.mcp_server.mcp_server_manager"
_ON_THE_GATEWAY = re.compile(r"\s*(litellm_proxy|https?://.+/mcp/[^/]+$)", re.IGNORECASE)


def _runs_itself(tool: Any) -> bool:
    """A server of a LiteLLM proxy's MCP gateway, or a store that LiteLLM searches: with whose rights?"""
    if not isinstance(tool, Mapping):
        return False
    litellm = sys.modules["litellm"]
    if tool.get("vector_store_ids") and getattr(litellm, "vector_store_registry", None) is not None:
        return True
    url = tool.get("server_url")
    named = _ON_THE_GATEWAY.match(url) if isinstance(url, str) else None
    return named is not None and (_GATEWAY in sys.modules or named[1].casefold() == "litellm_proxy")
