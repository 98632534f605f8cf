"""`ChatCappy`: best of N behind one LangChain chat model. Two conversions around `Selector`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_serializer

from cappy_select import (
    Candidate,
    Delta,
    InputError,
    NoCandidates,
    Selection,
    Selector,
)
from cappy_select.ask import (
    check_fields,
    reasons_in,
)
from cappy_select.core import credentials_in, masked
from cappy_select.select import SelectorConfig, limit
from langchain_cappy.copies import SharedByCopies
from langchain_cappy.errors import langchains_own
from langchain_cappy.forms import InForm, choice_among
from langchain_cappy.messages import (
    ORIGINALS,
    Prompt,
    as_chunk,
    as_message,
    as_openai,
    last_chunk,
    unfit_chunks,
    unfit_message,
)
from langchain_cappy.provider import LangChainProvider, name_of

Method = Literal["function_calling", "json_schema", "json_mode"]


class ChatCappy(SharedByCopies, BaseChatModel):
    """A chat model that asks several models for several answers and returns the best one unchanged.

    Example:
        >>> from langchain_cappy import ChatCappy
        >>> model = ChatCappy(models=["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"], samples=4)
        >>> model.invoke("Name three rivers in Peru.").response_metadata["score"]  # doctest: +SKIP

    The message's `usage_metadata` counts all calls, once. Its `response_metadata` has the winner's `model_name`,
    `score` and `finish_reason`, `tokens_cut` to fit the scorer's window, the `cost` of all calls in dollars
    (None when a price is unknown), a summary of the `candidates`, and the `failures`.

    Streamed, the winner comes in pieces once it is found; when one answer of one model is asked for, its pieces
    come as the model writes them.

    What is scored is the answer's text, then each tool call as `name(arguments)`; an answer that calls a tool which
    was not offered, with arguments that its schema forbids, or that is not the JSON that was asked for, can't win
    against one that fits. Where none fits, the first is returned as from the bare model, with `no_usable_answer` in its
    metadata: agents and parsers deal with it.

    A copy, a deep one too, shares models and scorer. A pickle holds the fields, the key only if one was given, and
    loads the scorer anew; TypeError names a field that can't be pickled (LangChain models with open clients can't).

    Too few usable answers raise `cappy_select.NoCandidates`, which is LangChain's own error too (`ModelRateLimitError`,
    `ModelTimeoutError`, ...) when all calls failed alike.

    Args:
        models: Names as `cappy_select.Selector` takes them (LiteLLM's), LangChain chat models, or `cappy_select`
            providers.
        samples: Answers to ask of each model; default 4. Short for a plan.
        plan: What to ask of each model instead: a `cappy_select.Plan`, its preset's name, or a JSON file.
        scorer: What a `Selector` takes: a `Scorer`, what `Scorer.load` takes, a function of pairs; None for the
            embedded one.
        strategy: How the winner is found: a `cappy_select.Strategy`; default `Argmax()`.
        gates: What an answer must be to be scored: `cappy_select` gates, or functions of a candidate.
        instruction: How the scorer's instruction is made of the messages: `paper`, `chat` (default), `last_user`, or a
            callable.
        temperature: Of every call; a call's own wins.
        max_tokens: Tokens that an answer may have.
        stop: Texts that end an answer.
        timeout: `deadline_s`, under the name that LangChain's models have for it: seconds for all calls of an answer
            together.
        grace_s: Seconds that the other calls have once `min_usable` answers arrived.
        max_retries: Of one call. A LangChain model's own retries come on top: set those to 0, or these.
        min_usable: Usable answers needed.
        max_cost: Dollars that one answer may cost over all calls.
        max_candidates: Answers that one call may ask for.
        max_concurrency: Calls to one provider at a time, over all calls of this model.
        cool_down_after: Failures of a provider in a row, before it is left alone.
        cool_down_s: Seconds that it is left alone then.
        accept_cut_off: Answers that a limit cut off can win; None: as the plan says.
        stop_when: A score that is good enough to cancel the other calls.
        abstain_below: A score that the winner must have: else `cappy_select.NoGoodAnswer` is raised.
        api_key: For every model given by name; default each provider's own environment variable.
        api_base: The address of an OpenAI-compatible server, for the models given by name.
        model_kwargs: Further parameters of every call.
        allowed_params: What a call may set beyond OpenAI's own parameters; None: whatever no client library acts upon
            itself.
        streaming: Stream in `invoke` too, for callbacks that want tokens.

    Raises:
        UnknownArgument: a field that there is not (a TypeError).
        InputError: a field is out of range, two contradict each other, or a model can't be had.
        BundleError: the scorer can't be loaded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    models: list[Any] = Field(min_length=1)
    samples: int | None = Field(None, ge=1)
    plan: Any = None
    scorer: Any = None
    strategy: Any = None
    gates: list[Any] = Field(default_factory=list)
    instruction: Any = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | str | None = None
    timeout: float = limit("deadline_s")
    grace_s: float | None = limit("grace_s")
    max_retries: int = limit("max_retries")
    min_usable: int = limit("min_usable")
    max_cost: float | None = limit("max_cost")
    max_candidates: int = limit("max_candidates")
    max_concurrency: int = limit("max_concurrency")
    cool_down_after: int = limit("cool_down_after")
    cool_down_s: float = limit("cool_down_s")
    accept_cut_off: bool | None = limit("accept_cut_off")
    stop_when: float | None = limit("stop_when")
    abstain_below: float | None = limit("abstain_below")
    api_key: SecretStr | None = None
    api_base: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    allowed_params: list[str] | None = None
    streaming: bool = False

    _built: tuple[dict[str, Any], Selector] = PrivateAttr()

    if not TYPE_CHECKING:  # whose reader knows the fields

        def __init__(self, **fields: Any) -> None:
            check_fields(type(self).__name__, fields, type(self).model_fields, params="model_kwargs")
            super().__init__(**fields)

    def model_post_init(self, context: Any, /) -> None:
        """Load the scorer and check the models once, here and not in the first request.

        Args:
            context: Pydantic's own.
        """
        super().model_post_init(context)
        setup = self._setup
        self._built = setup, _selector_of(setup)

    @property
    def _setup(self) -> dict[str, Any]:
        same = ("models", "samples", "plan", "scorer", "strategy", "gates", "instruction", "api_base", "allowed_params")
        more = tuple(name for name in SelectorConfig.model_fields if name != "deadline_s")
        setup = {
            **{name: getattr(self, name) for name in same + more},
            "deadline_s": self.timeout,
            "api_key": self.api_key.get_secret_value() if self.api_key else None,
        }
        if taken := sorted(self.model_kwargs.keys() & setup.keys()):
            raise InputError(f"model_kwargs go to the models; {', '.join(taken)}: set the field instead")
        # Copies: what is appended to a list later is a change.
        return {name: list(value) if isinstance(value, list) else value for name, value in setup.items()} | {
            "params": self._params
        }

    @property
    def _selector(self) -> Selector:
        """The selector of the fields as they are now: `model_copy(update=...)` and assignment count."""
        setup, selector = self._built
        if setup != self._setup:
            same = setup["scorer"] is self.scorer
            selector = _selector_of(self._setup | ({"scorer": selector.scorer} if same else {}))
            self._built = self._setup, selector
        return selector

    @property
    def _llm_type(self) -> str:
        return "cappy"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `langchain_core.load.dumps` writes its configuration, which it does, without the key.

        Returns:
            True.
        """
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The key is read from the first named model's own variable when it is loaded again."""
        named = next((model for model in self.models if isinstance(model, str)), "openai")
        vendor = ("openai" if named.startswith("openai:") else named.partition("/")[0]).upper()
        secret = {"api_key": f"{vendor}_API_KEY"}
        return secret if self._shown_base == self.api_base else secret | {"api_base": f"{vendor}_API_BASE"}

    @property
    def _shown_base(self) -> str | None:
        """The address, without a password or key that stands in it."""
        return self.api_base and masked(self.api_base, credentials_in(api_base=self.api_base))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, self._shown_base if name == "api_base" else value

    @field_serializer("api_base")
    def _without_password(self, _: str | None) -> str | None:
        return self._shown_base

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What makes two instances answer differently."""
        return {
            "models": [_name(model) for model in self.models],
            "api_base": self._shown_base,
            "plan": self._selector.plan.model_dump(mode="json"),
            "min_usable": self.min_usable,
            "timeout": self.timeout,
            "scorer": self._selector.scorer.name,
            "chosen_by": [_identity(part) for part in (self.strategy, self.instruction, *self.gates)],
            "limits": [self.grace_s, self.stop_when, self.abstain_below, self.max_cost, self.accept_cut_off],
            **self._params,
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """What LangChain's cache keys on; its own way knows no scorer's digest, and a copy's fields from before."""
        return f"{super()._get_llm_string(stop, **kwargs)}---{json.dumps(self._identifying_params, default=str)}"

    @property
    def _params(self) -> dict[str, Any]:
        """Parameters of every call."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": stop or None}
        return {**{name: value for name, value in fields.items() if value is not None}, **self.model_kwargs}

    def get_num_tokens(self, text: str) -> int:
        """Tokens as the scorer counts them; LangChain's default would fetch a tokenizer from a hub.

        Args:
            text: Any text.

        Returns:
            Their number.
        """
        return self._selector.scorer.count_tokens(text)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """What tracing shows; there is no one model, so the name lists them."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_model_name"] = kwargs.get("model") or "+".join(map(_name, self.models))
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        selector, prompt, form = self._asked(messages)
        with langchains_own(), _originals(messages, prompt):
            try:
                message = as_message(selector.select(prompt, _call(stop, kwargs)))
            except NoCandidates as error:
                message = unfit_message(self._misfit(form, error), error)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        selector, prompt, form = self._asked(messages)
        with langchains_own(), _originals(messages, prompt):
            try:
                message = as_message(await selector.aselect(prompt, _call(stop, kwargs)))
            except NoCandidates as error:
                message = unfit_message(self._misfit(form, error), error)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        selector, prompt, form = self._asked(messages)
        pieces = selector.stream(prompt, _call(stop, kwargs))
        begun = False
        with langchains_own():
            try:
                with _originals(messages, prompt):  # until the calls are under way: the caller shares this context
                    piece = next(pieces, None)
                while piece is not None:
                    begun = True
                    yield _generation(piece)
                    piece = next(pieces, None)
            except NoCandidates as error:
                yield from map(_chunk, unfit_chunks(self._misfit(form, error), error, begun=begun))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        selector, prompt, form = self._asked(messages)
        begun = False
        async with aclosing(selector.astream(prompt, _call(stop, kwargs))) as pieces:
            with langchains_own():
                try:
                    with _originals(messages, prompt):
                        piece = await anext(pieces, None)
                    while piece is not None:
                        begun = True
                        yield _generation(piece)
                        piece = await anext(pieces, None)
                except NoCandidates as error:
                    for chunk in unfit_chunks(self._misfit(form, error), error, begun=begun):
                        yield _chunk(chunk)

    def _asked(self, messages: Sequence[BaseMessage]) -> tuple[Selector, Prompt, InForm]:
        """Who is asked for one answer, for what, and what judges its form. Raises InputError when no model of the
        panel can be sent the messages."""
        names = [model for model in self.models if isinstance(model, str)]
        litellm = not names or any(not name.startswith("openai:") for name in names)
        prompt = as_openai(messages, litellm=litellm, thoughts=bool(names) and all(map(_takes_thoughts, names)))
        if len(names) == len(self.models) and (why := reasons_in(prompt)):
            raise InputError(f"{'; '.join(why)} (asked: {', '.join(names)}); a LangChain model is sent it as it is")
        form = InForm()
        return self._selector._with_form(form), prompt, form

    def _misfit(self, form: InForm, error: NoCandidates) -> Candidate:
        """What the bare model would have given, where answers have only their form against them. Raises `error`."""
        if not form.misfits or self.min_usable > 1 or self.abstain_below is not None:
            raise error
        return form.misfits[0]

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools that the models may call.

        Args:
            tools: As `convert_to_openai_tool` takes them: functions, pydantic classes, LangChain tools, dicts.
            tool_choice: `auto`, `none`, `any` (also `required`), a tool's name, OpenAI's dict, or True for the only
                tool.
            strict: Ask OpenAI to keep to the schema.
            **kwargs: Further parameters of every call (`parallel_tool_calls`, ...).

        Returns:
            This model with the tools bound.

        Raises:
            InputError: a tool can't be put in OpenAI's form, or the choice is none of them.
        """
        try:
            offered = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        except ValueError as error:
            raise InputError(f"a tool can't be put in OpenAI's form: {error}") from error
        if tool_choice:
            kwargs["tool_choice"] = choice_among(tool_choice, offered)
        if offered:
            kwargs["tools"] = offered
        return self.bind(**kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers as objects of a schema; candidates that break it can't win against one that fits.

        Args:
            schema: A pydantic class, a TypedDict, a JSON Schema, or an OpenAI tool.
            include_raw: Give `{"raw": message, "parsed": object or None, "parsing_error": error or None}`.
            method: `function_calling` works with the most models. `json_schema` is OpenAI's structured output, which
                LiteLLM translates for some others. `json_mode`: only JSON; the prompt must say of what kind.
            strict: Ask OpenAI to keep to the schema.
            **kwargs: Further parameters of every call.

        Returns:
            A runnable that gives objects of the schema: of its class, or dicts.

        Raises:
            InputError: the method is none of the three.
        """
        tool = convert_to_openai_tool(schema, strict=strict)
        name, is_class = tool["function"]["name"], isinstance(schema, type) and is_basemodel_subclass(schema)
        shown = {"kwargs": {"method": method}, "schema": convert_to_json_schema(schema)}
        parser: Any = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
        if method == "function_calling":
            asked = self.bind_tools(
                [schema], tool_choice=name, strict=strict, ls_structured_output_format=shown, **kwargs
            )
            parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            if is_class:
                parser = PydanticToolsParser(tools=[schema], first_tool_only=True)
        elif method == "json_schema":
            wanted = {"name": name, "schema": tool["function"]["parameters"]}
            wanted |= {} if strict is None else {"strict": strict}
            asked = self.bind(
                response_format={"type": "json_schema", "json_schema": wanted},
                ls_structured_output_format=shown,
                **kwargs,
            )
        elif method == "json_mode":
            if strict is not None:
                raise InputError("strict is for schemas, and json_mode sends none")
            asked = self.bind(response_format={"type": "json_object"}, ls_structured_output_format=shown, **kwargs)
        else:
            raise InputError(f"method must be function_calling, json_schema or json_mode, got {method!r}")
        if not include_raw:
            found: Runnable[LanguageModelInput, Any] = asked | parser
            return found
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        none = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=asked) | parsed.with_fallbacks([none], exception_key="parsing_error")


def _call(stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's parameters of one call; they win over the fields'."""
    given = {name: value for name, value in kwargs.items() if name != "stream"}
    return given | ({"stop": stop} if stop and "stop" not in given else {})


@contextmanager
def _originals(messages: Sequence[BaseMessage], prompt: Prompt) -> Iterator[None]:
    token = ORIGINALS.set((messages, prompt))
    try:
        yield
    finally:
        ORIGINALS.reset(token)


def _generation(piece: Delta | Selection) -> ChatGenerationChunk:
    return _chunk(as_chunk(piece) if isinstance(piece, Delta) else last_chunk(piece))


def _chunk(message: AIMessageChunk) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=message)


def _takes_thoughts(name: str) -> bool:
    """Claude, which wants its own thinking back before a call of a tool, by vendors for which LiteLLM knows how."""
    vendor = name.partition("/")[0] if "/" in name else "anthropic"
    return "claude" in name and vendor in ("anthropic", "bedrock", "vertex_ai", "azure_ai")


def _selector_of(setup: Mapping[str, Any]) -> Selector:
    models = [LangChainProvider(m) if isinstance(m, BaseChatModel) else m for m in setup["models"]]
    return Selector(**{**setup, "models": models})


def _identity(part: Any) -> str:
    """A strategy or gate by its kind and settings; a function by itself."""
    if part is None or isinstance(part, str):
        return str(part)
    return repr(part) if callable(part) else f"{type(part).__qualname__} {getattr(part, '__dict__', '')}"


def _name(model: Any) -> str:
    if isinstance(model, BaseChatModel):
        return name_of(model)
    return model if isinstance(model, str) else str(model.model)
