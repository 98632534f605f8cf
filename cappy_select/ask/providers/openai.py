"""Any OpenAI-compatible endpoint through OpenAI's own client: no LiteLLM in the path.

The client's retries are off: a retry belongs to the fan-out, which knows the deadline. Connections belong to
the event loop that opened them, so each loop has a client of its own.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import cache
from typing import Any, Unpack
from urllib.parse import urlsplit

from cappy_select.ask.parameters import FIXED, KNOWN, ProviderParameters, flat, given
from cappy_select.ask.prices import most_usage
from cappy_select.ask.providers.content import check_parts, without_cache_marks
from cappy_select.ask.providers.failures import failure_of
from cappy_select.ask.providers.loops import PerLoop
from cappy_select.ask.providers.openai_format import COMMON, TokenPrices, candidates_of, refuse_seed
from cappy_select.ask.providers.streams import streamed
from cappy_select.ask.providers.transport import guard
from cappy_select.ask.sampling import token_limit
from cappy_select.core.characters import without_halves
from cappy_select.core.closing import Closable
from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError, ProviderError
from cappy_select.core.fork import ask_for_platform
from cappy_select.core.masking import credentials_in
from cappy_select.core.types import Candidate, Delta, Message, Request, Usage, content_text

_OPENAI = "api.openai.com"


@made_again
class OpenAIProvider(Closable):
    """A model of an OpenAI-compatible endpoint.

    A copy is the same provider; a pickle holds what it was made with, a key only if one was given.

    Args:
        model: The model's name there, such as `gpt-5-mini`.
        api_key: The key; default `OPENAI_API_KEY`, which a server at an `api_base` is sent too.
        api_base: The address, with `/v1` if it has one; default `OPENAI_BASE_URL`, or OpenAI's own.
        input_cost_per_token, output_cost_per_token: Dollars; without them the price is unknown.
        supports: Sampling parameters that it honours beyond `n, temperature, top_p, seed, max_tokens, logprobs`: vLLM
            has `top_k` and `min_tokens` too.
        context_window: Tokens of prompt and answer together; in-context examples are fitted into it.
        params: Passed with every call; a request's own parameters win. What is no parameter of OpenAI's goes into the
            request's body as it is.
        **known: OpenAI's call parameters and those of a `Sampling` by name (temperature, max_tokens, ...), and
            `extra_headers`, `extra_query`.

    Raises:
        InputError: there is no key, only half a price, or one that can't be; or a parameter is none.
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
        context_window: int | None = None,
        params: Mapping[str, Any] | None = None,
        **known: Unpack[ProviderParameters],
    ) -> None:
        own = given(
            type(self).__init__, params, known, name="OpenAIProvider", keywords=ProviderParameters.__annotations__
        )
        self._prices = TokenPrices.given(input_cost_per_token, output_cost_per_token)
        refuse_seed(own)
        token_limit(own)  # one that is none is said now
        if not model:
            raise InputError("name the model, such as OpenAIProvider('gpt-5-mini')")
        import openai  # a second; when the first provider is made

        ask_for_platform()
        self._openai, self._model, self._params = openai, model, own
        self._supports = COMMON | frozenset(supports)
        self._context_window = context_window
        address = api_base or os.environ.get("OPENAI_BASE_URL") or f"https://{_OPENAI}/v1"
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key and urlsplit(address).hostname == _OPENAI:
            raise InputError(f"no key for {model!r}: set OPENAI_API_KEY, or OpenAIProvider(api_key=...)")
        # The client wants a word; a server of one's own often does not.
        self._options: dict[str, Any] = {"api_key": key or "none", "base_url": address, "max_retries": 0}
        self._secrets = credentials_in(key, api_base=address, params=own)
        self._clients: PerLoop[Any] = PerLoop(self._new_client, _close)
        # OpenAI's reasoning models refuse the old name, most compatible servers know only that.
        self._limit = "max_completion_tokens" if _is_openais(address) else "max_tokens"

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    def unsupported(self, params: Mapping[str, Any]) -> frozenset[str]:
        """What is neither OpenAI's common parameter nor in `supports`.

        Args:
            params: Sampling parameters, `n` and `logprobs` by name.

        Returns:
            The names of those that it is not sent.
        """
        return frozenset(params.keys() - self._supports)

    def max_prompt_tokens(self, max_tokens: int | None) -> int | None:
        """The `context_window` given, less the answer; None when none was given.

        Args:
            max_tokens: Tokens that the answer may have; None: as the provider's own parameters say, else 0.

        Returns:
            Tokens, or None.
        """
        own = self._params.get("max_tokens") or self._params.get("max_completion_tokens") or 0
        return None if self._context_window is None else self._context_window - (max_tokens or own)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """About, and rather too many: a token for every three bytes, and four a message.

        Args:
            messages: OpenAI-style; content that is not text is not counted.

        Returns:
            Tokens.
        """
        texts = (content_text(message.get("content"))[0] for message in messages)
        return sum(4 + -(-len(text.encode(errors="replace")) // 3) for text in texts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"  # never the key

    async def complete(self, request: Request) -> list[Candidate]:
        """One `chat.completions.create` call.

        Args:
            request: What to ask. Of its parameters those that the client does not have go into the body.

        Returns:
            A candidate for each choice of the response.

        Raises:
            ProviderError: the call failed, or brought no answer.
        """
        response = await self._create(request, {"n": request.n} if request.n > 1 else {})
        return candidates_of(response, request, model=self._model, cost_of=self.price, secrets=self._secrets)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Candidate, None]:
        """One streamed call, for one answer.

        Args:
            request: What to ask; its `n` is not read.

        Yields:
            The answer's pieces as they come, then the whole of it.

        Raises:
            ProviderError: the call failed, or the stream broke off.
        """
        response = await self._create(request, {"stream": True, "stream_options": {"include_usage": True}})
        async with aclosing(
            streamed(response, request, model=self._model, secrets=self._secrets, cost_of=self.price)
        ) as pieces:
            async for piece in pieces:
                yield piece

    async def _create(self, request: Request, more: Mapping[str, Any]) -> Any:
        check_parts(request.messages, model=self._model)
        if self._limit == "max_completion_tokens":  # OpenAI's own API
            request = request.model_copy(update={"messages": without_cache_marks(request.messages)})
        params = {**self._arguments(request), **more}
        if "max_tokens" in params:
            params[self._limit] = params.pop("max_tokens")
        try:
            return await self._client().chat.completions.create(
                model=self._model, messages=without_halves(request.messages), timeout=request.timeout_s, **params
            )
        except Exception as error:  # the client also passes on what its HTTP and JSON layers raise
            # Without its cause, whose text may hold the key.
            raise failure_of(error, model=self._model, secrets=self._secrets) from None

    def _arguments(self, request: Request) -> dict[str, Any]:
        """The owner's parameters and the request's; those that the client does not have go into the body, and of the
        request's also its options, such as headers."""
        try:
            asked = flat(request.params)
        except InputError as error:
            raise ProviderError(str(error), kind="bad_request", model=self._model) from None
        if fixed := sorted(FIXED & asked.keys()):
            raise ProviderError(f"{', '.join(fixed)} is no parameter of a call", kind="bad_request", model=self._model)
        own, known = dict(self._params), _known_parameters()
        body = {name: own.pop(name) for name in list(own) if name not in known} | (own.pop("extra_body", None) or {})
        body |= {name: asked.pop(name) for name in list(asked) if name not in known & KNOWN}
        return {**own, **asked} | ({"extra_body": body} if body else {})

    def price(self, usage: Usage) -> float | None:
        """Dollars by the prices given at construction; None without them.

        Args:
            usage: Tokens of one or several calls.

        Returns:
            Dollars, or None.
        """
        return None if self._prices is None else self._prices.of(usage)

    def highest_price(self, request: Request) -> float | None:
        """Dollars of a call at most, by the prices given at construction; None without them.

        Args:
            request: The call. Every byte of it counts as a token, and its answers are as long as their limit allows.

        Returns:
            Dollars, or None. Without a limit of tokens those of the prompt alone.
        """
        return self.price(most_usage(request, self._arguments(request)))

    async def aclose(self) -> None:
        """Close its connections; it opens new ones when it is asked again."""
        await self._clients.aclose()

    def _client(self) -> Any:
        return self._clients.get()

    def _new_client(self) -> Any:
        # Without one of ours the client makes one that, collected late, closes itself on another's loop.
        http = self._openai.DefaultAsyncHttpxClient()
        guard(http)
        return self._openai.AsyncOpenAI(**self._options, http_client=http)


async def _close(client: Any) -> None:
    await client.close()


def _is_openais(address: str) -> bool:
    """Whether OpenAI or Azure serves its models there. Azure's older path `/models` is for those of others."""
    parts = urlsplit(address)
    host = (parts.hostname or "").rstrip(".")
    if host.endswith(".services.ai.azure.com") and parts.path.startswith("/models"):
        return False
    return host.endswith(_OPENAIS)


_OPENAIS = (
    *(".openai.com", ".openai.azure.com", ".openai.azure.us", ".openai.azure.cn"),
    *(".cognitiveservices.azure.com", ".services.ai.azure.com"),
)


@cache
def _known_parameters() -> frozenset[str]:
    from openai.resources.chat.completions import AsyncCompletions

    return frozenset(inspect.signature(AsyncCompletions.create).parameters)
