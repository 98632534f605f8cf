"""Any model LiteLLM can call, one call at a time.

LiteLLM's own retries are off (a retry belongs to the fan-out, which knows the deadline) and every call has
an explicit timeout (LiteLLM's default is 6000 s).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Unpack
from weakref import WeakSet

from cappy_select.ask.parameters import ProviderParameters, all_of, given
from cappy_select.ask.prices import highest_of, most_usage
from cappy_select.ask.providers import litellm_own
from cappy_select.ask.providers.content import check_parts, for_claude
from cappy_select.ask.providers.failures import failure_from, failure_of, refusal_in
from cappy_select.ask.providers.litellm_clients import close_our_clients, our_clients
from cappy_select.ask.providers.openai_format import COMMON, TokenPrices, candidates_of, refuse_seed
from cappy_select.ask.providers.received import Received
from cappy_select.ask.providers.streams import streamed
from cappy_select.ask.providers.transport import kept_in
from cappy_select.ask.sampling import token_limit
from cappy_select.core.characters import without_halves
from cappy_select.core.closing import Closable
from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError, ProviderError
from cappy_select.core.figures import ANY, dollars_of
from cappy_select.core.fork import ask_for_platform
from cappy_select.core.masking import credentials_in, masked
from cappy_select.core.types import Candidate, Delta, Message, Request, Usage

# Beyond OpenAI's parameters, which LiteLLM lists by model.
_TOP_K = frozenset(
    {
        *("anthropic", "bedrock", "bedrock_converse", "cohere_chat", "deepinfra", "fireworks_ai", "gemini"),
        *("hosted_vllm", "huggingface", "ollama", "ollama_chat", "openrouter", "together_ai", "vertex_ai", "vllm"),
    }
)
_MIN_TOKENS = frozenset({"hosted_vllm", "vllm"})
_ANTHROPICS_FORM = frozenset({"vertex_ai", "azure_ai"})  # where LiteLLM writes Claude's requests as to Anthropic itself


_open: WeakSet[LiteLLMProvider] = WeakSet()  # those that were asked, and not closed since

_OF_A_READER = frozenset({"server", "bad_request", "invalid_response", "connection"})


@made_again
class LiteLLMProvider(Closable):
    """A model by its LiteLLM name. Importing LiteLLM (about 2 s) happens when the first one is made.

    A copy is the same provider; a pickle holds what it was made with, a key only if one was given.

    Args:
        model: A LiteLLM model name with its provider, such as `openai/gpt-5-mini`.
        api_key: The key; default the provider's own environment variable.
        api_base: The address of an OpenAI-compatible server.
        input_cost_per_token, output_cost_per_token: Dollars; for models LiteLLM has no price for.
        supports: Sampling parameters that it honours beyond those LiteLLM knows of (`n`, `top_k`, ...).
        params: Passed with every call; a request's own parameters win. What LiteLLM acts upon itself (`api_version`,
            `drop_params`, `mock_response`, ...) can be set here alone: a request's parameters reach LiteLLM only where
            they are OpenAI's, and the body of the request at most where they are not.
        **known: OpenAI's call parameters and those of a `Sampling` by name (temperature, max_tokens, ...), and
            `extra_headers`, `extra_query`.

    Raises:
        InputError: LiteLLM knows no provider for the name, only half a price is given, or one that can't be; or a
            parameter is none.
        UnknownArgument: an argument that there is not.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        api_base: str | None = None,
        input_cost_per_token: float | None = None,
        output_cost_per_token: float | None = None,
        supports: Collection[str] = (),
        params: Mapping[str, Any] | None = None,
        **known: Unpack[ProviderParameters],
    ) -> None:
        own = given(
            type(self).__init__, params, known, name="LiteLLMProvider", keywords=ProviderParameters.__annotations__
        )
        # Not handed to LiteLLM, which would write them into its global price list.
        self._prices = TokenPrices.given(input_cost_per_token, output_cost_per_token)
        refuse_seed(own)
        token_limit(own)  # one that is none is said now
        self._litellm = _import_litellm()
        try:
            self._bare, self._vendor, *_ = self._litellm.get_llm_provider(model, api_base=api_base)
        except self._litellm.exceptions.BadRequestError as error:
            raise InputError(
                f"LiteLLM knows no provider for the model {masked(model)!r}: write it with its provider, "
                "such as 'openai/gpt-5-mini'"
            ) from error
        self._model, self._api_key, self._api_base, self._params = model, api_key, api_base, own
        self._secrets = credentials_in(api_key, api_base=api_base, params=own)
        self._supports, self._extra = _supported(self._litellm, model, self._vendor), frozenset(supports)
        self._known: dict[tuple[str, Any], bool] = {}

    @property
    def model(self) -> str:
        """The LiteLLM model name."""
        return self._model

    def unsupported(self, params: Mapping[str, Any]) -> frozenset[str]:
        """What does not reach the model, by LiteLLM's lists and checks of values, unless it is in `supports`.

        Args:
            params: Sampling parameters, `n` and `logprobs` by name, with the values that are asked for.

        Returns:
            The names.
        """
        return frozenset(name for name, value in params.items() if not self._takes(name, value))

    def acted_upon(self, params: Mapping[str, Any]) -> set[str]:
        """What LiteLLM would act upon itself: its own arguments, in whatever spelling, and tools that it would run.

        Args:
            params: A caller's parameters.

        Returns:
            Their names.
        """
        return litellm_own.acted_upon(params)

    def _takes(self, name: str, value: Any) -> bool:
        if name in self._extra:
            return True
        if name not in self._supports:
            return False
        if (name, value) not in self._known:
            self._known[name, value] = name not in COMMON or self._passes(name, value)
        return self._known[name, value]

    def _passes(self, name: str, value: Any) -> bool:
        """OpenAI's reasoning models list a temperature, and take only that of 1."""
        try:
            self._litellm.get_optional_params(model=self._bare, custom_llm_provider=self._vendor, **{name: value})
        except self._litellm.exceptions.UnsupportedParamsError:
            return False
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"  # never the key

    async def complete(self, request: Request) -> list[Candidate]:
        """One `litellm.acompletion` call, without retries.

        Args:
            request: What to ask. Of its parameters those that are neither OpenAI's nor in `allowed` go into the body.

        Returns:
            A candidate for each choice of the response.

        Raises:
            ProviderError: the call failed, or brought no answer.
        """
        received = Received()
        response = await self._completion(request, {"n": request.n} if request.n > 1 else {}, received)
        params = self._arguments(request)
        if not isinstance(response, Mapping) and (error := received.error) is not None:  # LiteLLM took it for an answer
            raise failure_from(error, model=self._model, secrets=self._secrets)
        return candidates_of(
            response,
            request,
            model=self._model,
            cost_of=lambda usage: self._cost(response, usage, params),
            native_ends=received.ends(),
            secrets=self._secrets,
        )

    async def aclose(self) -> None:
        """Close the connections of all LiteLLM providers, when it is the last one that is open: they share them.

        New ones are opened when one of them is asked again.
        """
        _open.discard(self)
        if not _open:
            await close_our_clients()

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Candidate, None]:
        """One streamed call, for one answer.

        Args:
            request: What to ask; its `n` is not read.

        Yields:
            The answer's pieces as they come, then the whole of it.

        Raises:
            ProviderError: the call failed, or the stream broke off.
        """
        response = await self._completion(request, {"stream": True, "stream_options": {"include_usage": True}})
        params = self._arguments(request)
        cost_of = partial(self._priced, params=params)
        async with aclosing(
            streamed(response, request, model=self._model, secrets=self._secrets, cost_of=cost_of)
        ) as pieces:
            async for piece in pieces:
                yield piece

    async def _completion(self, request: Request, more: Mapping[str, Any], received: Received | None = None) -> Any:
        """LiteLLM's response; the body itself, where one came that LiteLLM can't read."""
        check_parts(request.messages, model=self._model)
        messages = self._readable(without_halves(request.messages))  # a copy: LiteLLM may change them, calls share them
        params = {**self._arguments(request), **more}
        choice = params.get("tool_choice")
        if isinstance(choice, Mapping) and choice.get("type") == "custom":  # LiteLLM refuses it, and OpenAI takes it
            params["extra_body"] = {**(params.get("extra_body") or {}), "tool_choice": params.pop("tool_choice")}
        _open.add(self)
        try:
            with our_clients(self._litellm), kept_in(None if received is None else received.raw):
                response = await self._litellm.acompletion(
                    model=self._model,
                    messages=messages,
                    api_key=self._api_key,
                    api_base=self._api_base,
                    timeout=request.timeout_s,
                    num_retries=0,
                    max_retries=0,
                    logger_fn=received,
                    **params,
                )
            self._keep_clients(response)
            return response
        except Exception as error:  # LiteLLM also passes on what its HTTP layers raise
            failure = failure_of(error, model=self._model, secrets=self._secrets)
            if refusal_in(error) is not None:
                raise failure from None
            if received is not None and (received.says_more or (received.is_there and failure.kind in _OF_A_READER)):
                # It came, and is billed: LiteLLM gives any status to what it can't read, and would be asked again.
                body = received.body
                return body if body is not None else {"unreadable": failure.message}
            # Without its cause, whose text may hold the key.
            raise failure from None

    def _readable(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For Claude what LiteLLM would send it wrongly, or not at all, in another form. Raises ProviderError."""
        claude = self._vendor == "anthropic" or (self._vendor in _ANTHROPICS_FORM and "claude" in self._bare)
        return for_claude(messages, model=self._model) if claude else messages

    def _arguments(self, request: Request) -> dict[str, Any]:
        """The owner's parameters and the request's; what of those LiteLLM acts upon was refused, and is again."""
        try:
            asked = litellm_own.arguments(request.params, request.allowed)
        except InputError as error:
            raise ProviderError(str(error), kind="bad_request", model=self._model) from None
        body = {**(self._params.get("extra_body") or {}), **asked.pop("extra_body", {})}
        params = {**self._params, **asked} | ({"extra_body": body} if body else {})
        return params | (_without_mcp(owned="tools" not in asked) if "tools" in params else {})

    def _keep_clients(self, response: Any) -> None:
        """Some streams are asked for with the first piece."""
        make = getattr(response, "make_call", None)
        if callable(make) and getattr(response, "completion_stream", None) is None:

            async def made(*args: Any, **options: Any) -> Any:
                with our_clients(self._litellm):
                    return await make(*args, **options)

            response.make_call = made

    def max_prompt_tokens(self, max_tokens: int | None) -> int | None:
        """Tokens that a prompt may have, by LiteLLM's list, which counts answers apart; None for a model not on it.

        Args:
            max_tokens: Not used: LiteLLM's figure is for the prompt alone.

        Returns:
            Tokens, or None.
        """
        try:
            known = self._litellm.get_model_info(self._model).get("max_input_tokens")
        except Exception:  # LiteLLM has no entry, and raises a plain Exception
            return None
        return None if known is None else int(known)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """A prompt's length in the tokens of OpenAI's newer models, which LiteLLM carries; others' differ a little.

        An image counts the same whatever its size: LiteLLM would fetch it to measure it.

        Args:
            messages: OpenAI-style.

        Returns:
            Tokens.
        """
        return int(
            self._litellm.token_counter(model="gpt-4o", messages=list(messages), use_default_image_token_count=True)
        )

    def price(self, usage: Usage) -> float | None:
        """Dollars by the prices given at construction, else by LiteLLM's price list.

        Args:
            usage: Tokens of one or several calls.

        Returns:
            Dollars; None for a model without a price.
        """
        return self._priced(usage, {})

    def highest_price(self, request: Request) -> float | None:
        """Dollars of a call at most: at the dearest of the rates that may apply, in LiteLLM's price list.

        Args:
            request: The call. Every byte of it counts as a token, and its answers are as long as their limit allows.

        Returns:
            Dollars; without a limit of tokens those of the prompt alone; None for a model without a price.
        """
        params = self._arguments(request)
        usage = most_usage(request, params)
        if self._prices is not None:
            return self._prices.of(usage)
        known = [self._priced(usage, params), highest_of(self._listed(), usage, request, params)]
        return max((dollars for dollars in known if dollars is not None), default=None)

    def _priced(self, usage: Usage, params: Mapping[str, Any]) -> float | None:
        """Dollars at the service tier that the parameters ask for."""
        if self._prices is not None:
            return self._prices.of(usage)
        try:
            costs = self._litellm.cost_per_token(
                model=self._model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                service_tier=next((value for name, value in all_of(params) if name == "service_tier"), None),
            )
        except Exception:  # LiteLLM has no price for it, and says so in several ways
            return None
        return dollars_of(sum(costs), most=ANY)

    def _listed(self) -> Mapping[str, Any]:
        """The model's entry in LiteLLM's price list; empty when there is none."""
        try:
            listed = self._litellm.model_cost.get(self._litellm.get_model_info(self._model)["key"])
        except Exception:  # it has no entry, and raises a plain Exception
            return {}
        return listed if isinstance(listed, Mapping) else {}

    def _cost(self, response: Any, usage: Usage, params: Mapping[str, Any]) -> float | None:
        if self._prices is not None or usage.estimated:  # what LiteLLM makes of figures that we don't believe
            return self._priced(usage, params)
        cost = dollars_of((getattr(response, "_hidden_params", None) or {}).get("response_cost"))
        # LiteLLM reports 0 for a model without a price as well as for a free one: ask its list which it is.
        return cost or self._priced(usage, params)


def _supported(litellm: Any, model: str, vendor: str) -> frozenset[str]:
    listed = litellm.get_supported_openai_params(model, custom_llm_provider=vendor)
    if listed is None:  # a provider LiteLLM has no list for: what every chat model has
        listed = ["temperature", "top_p", "max_tokens"]
    others = {name for name, vendors in (("top_k", _TOP_K), ("min_tokens", _MIN_TOKENS)) if vendor in vendors}
    return COMMON & set(listed) | others


def _import_litellm() -> Any:
    # Read at LiteLLM's import: keeps it from fetching its price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    ask_for_platform()
    litellm.suppress_debug_info = True  # it prints advice to the terminal on every error otherwise
    return litellm


@cache
def _without_mcp(*, owned: bool) -> dict[str, Any]:
    """LiteLLM's MCP gateway calls tools with the rights of the proxy: for the owner's tools at most. It imports `mcp`,
    which it does not depend on, as soon as a call has tools."""
    if owned and find_spec("mcp") is not None:
        return {}
    found = find_spec("litellm.responses.mcp.chat_completions_handler") is not None
    return {"_skip_mcp_handler": True} if found else {}
