"""`CappyMiddleware`: best of N for every model call of an agent.

The agent's own model call is made several times, through whatever middleware lies within; each answer is a
candidate. Langgraph streams what models say unless they are marked: candidates are marked, and the winner is what the
agent's model node returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.internal_call_transformer import InternalCallTransformer, internal_call_metadata
from langchain.agents.structured_output import AutoStrategy, ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp

from cappy_select import (
    Candidate,
    Gate,
    InputError,
    NoCandidates,
    Request,
    Scorer,
    Selection,
    Selector,
    Strategy,
)
from cappy_select.ask import (
    estimated_usage,
)
from cappy_select.core import (
    InstructionPolicy,
    made_again,
)
from langchain_cappy.errors import langchains_own
from langchain_cappy.messages import as_candidate, as_openai, summary, usage_of
from langchain_cappy.provider import failure_in, name_of
from langchain_cappy.threads import in_thread

_UNTITLED = "response_format"  # the agent makes up a name with this beginning for a schema without a title


@made_again
class CappyMiddleware(AgentMiddleware[Any, Any, Any]):
    """Asks the agent's model several times at each step and goes on with the best answer.

    Example:
        >>> from langchain.agents import create_agent
        >>> from langchain_cappy import CappyMiddleware
        >>> agent = create_agent("openai:gpt-5-mini", tools, middleware=[CappyMiddleware(samples=3)])  # doctest: +SKIP

    A candidate that calls a tool which is not there, with arguments that the tool's schema forbids, or whose structured
    response does not fit, can't win. When all are like that the agent goes on with the first, as it would have without
    this middleware; when all calls failed the first error is raised, with all of them as its cause.

    The winner is the model's message as it was; its `response_metadata["cappy_select"]` says what it was chosen from.
    No losing candidate is in the agent's stream of messages, and the winner arrives whole. Callbacks see every call,
    tagged `nostream`, so usage handlers count them all. Put it last in the agent's list: what lies within it runs for
    every candidate.

    Args:
        models: Chat models, or names for `init_chat_model`, that are asked at each step; default the agent's own.
        samples: Answers to ask of each.
        temperature: Of the candidates; default the model's own, which must not be 0 for samples to differ.
        scorer: A `Scorer`, or what `Scorer.load` takes; None for the embedded default.
        instruction: How the scorer's instruction is made of the conversation, as `Selector` takes it.
        strategy: How the winner is found; default `Argmax()`.
        gates: What an answer must be beyond fitting its tools.
        timeout: Seconds for the candidates of one step together.
        grace_s: Seconds for the others once an answer can win; None: until `timeout`.
        max_retries: Of one call; the models have retries of their own.

    Raises:
        InputError: an argument is out of its range, or a model is none.
        BundleError: the scorer can't be loaded.
    """

    transformers = (InternalCallTransformer,)

    def __init__(
        self,
        models: Sequence[str | BaseChatModel] | None = None,
        *,
        samples: int = 4,
        temperature: float | None = None,
        scorer: Scorer | str | Path | None = None,
        instruction: InstructionPolicy | None = None,
        strategy: Strategy | None = None,
        gates: Iterable[Gate | Callable[[Candidate], object]] = (),
        timeout: float = 120.0,
        grace_s: float | None = None,
        max_retries: int = 0,
    ) -> None:
        super().__init__()
        if models is not None and (isinstance(models, str) or not models):
            raise InputError(f"models must be a non-empty list of chat models or names, got {models!r}")
        self._models = None if models is None else [_chat_model(model) for model in models]
        self._settings = {} if temperature is None else {"temperature": temperature}
        self._options: dict[str, Any] = {
            "samples": samples,
            "scorer": scorer if isinstance(scorer, Scorer) else Scorer.load(scorer),
            "instruction": instruction,
            "strategy": strategy,
            "gates": (_fits_its_format, *gates),
            "deadline_s": timeout,
            "grace_s": grace_s,
            "max_retries": max_retries,
        }
        Selector([_Checked()], **self._options)  # a bad option is said now, and not at the first step

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """The best of several calls of `handler`, each in a thread.

        Args:
            request: The agent's step.
            handler: Calls the model, through whatever other middleware lies within.

        Returns:
            The winner's response; the first one when none can win. When all calls failed, the first error is raised.
        """
        context = copy_context()  # langgraph's config is in it, and the calls are made in other threads

        def ask(marked: ModelRequest[Any]) -> Awaitable[ModelResponse[Any]]:
            return in_thread(partial(context.copy().run, handler, marked))

        step = _Step(request, [_Branch(ask, marked) for marked in self._marked(request)])
        try:
            selection = self._selector(step).select(step.messages, step.params)
        except NoCandidates as error:
            return step.without_winner(error)
        return step.winner(selection)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """The best of several calls of `handler`, at the same time.

        Args:
            request, handler: As in `wrap_model_call`.

        Returns:
            As `wrap_model_call`.
        """
        step = _Step(request, [_Branch(handler, marked) for marked in self._marked(request)])
        try:
            selection = await self._selector(step).aselect(step.messages, step.params)
        except NoCandidates as error:
            return step.without_winner(error)
        return step.winner(selection)

    def _selector(self, step: _Step) -> Selector:
        return Selector(step.branches, **self._options)

    def _marked(self, request: ModelRequest[Any]) -> list[ModelRequest[Any]]:
        """The request for each model, marked so that nothing of it is streamed or cached."""
        settings = {**request.model_settings, **self._settings}
        return [
            request.override(model=_marked(model), model_settings=settings) for model in self._models or [request.model]
        ]


class _Branch:
    """One model of a step, as a provider of candidates."""

    def __init__(
        self, ask: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]], of: ModelRequest[Any]
    ) -> None:
        self._ask, self._of, self.model = ask, of, name_of(of.model)
        self.arrived: list[tuple[Candidate, ModelResponse[Any]]] = []
        self.errors: list[Exception] = []

    async def complete(self, request: Request) -> list[Candidate]:
        try:
            response = await self._ask(self._of)
        except Exception as error:
            self.errors.append(error)
            raise failure_in(error, self._of.model, model=self.model) from error
        message = next((m for m in response.result if isinstance(m, AIMessage)), None)
        if message is None:
            raise TypeError(f"the model call returned no AIMessage but {response.result!r:.80}")
        usage = usage_of(message) or estimated_usage(request.messages, as_openai([message]))
        shaped = self._of.response_format is not None
        candidate = as_candidate(message, model=self.model, usage=usage, response=response, shaped=shaped)
        for call in candidate.message.get("tool_calls") or ():
            if call["function"]["name"].startswith(f"{_UNTITLED}_"):
                call["function"]["name"] = _UNTITLED
        self.arrived.append((candidate, response))
        return [candidate]


class _Step:
    """One step of the agent: what is asked, and what becomes of it."""

    def __init__(self, request: ModelRequest[Any], branches: list[_Branch]) -> None:
        self.branches = branches
        system = [] if request.system_message is None else [request.system_message]
        self.messages = as_openai([*system, *request.messages])
        self.params = _offered(request)

    def winner(self, selection: Selection) -> ModelResponse[Any]:
        self._bubble_up()
        return _noted(selection.best.response_fields["response"], summary(selection))

    def without_winner(self, error: NoCandidates) -> ModelResponse[Any]:
        """The first answer, unfit as it is, for the agent to deal with; else the first error."""
        self._bubble_up()
        for branch in self.branches:
            for _, response in branch.arrived:
                return _noted(response, {"no_usable_answer": str(error)})
        for branch in self.branches:
            for first in branch.errors:
                raise first from error
        with langchains_own():
            raise error

    def _bubble_up(self) -> None:
        """An interrupt of the graph is no failure of a candidate."""
        for branch in self.branches:
            for error in branch.errors:
                if isinstance(error, GraphBubbleUp):
                    raise error


def _marked(model: Any) -> Any:
    """The model, so that what it says is neither streamed nor cached; within bindings too."""
    if isinstance(model, RunnableBinding):
        return model.model_copy(update={"bound": _marked(model.bound)})
    return model.model_copy(
        update={
            "tags": [*(model.tags or ()), TAG_NOSTREAM],
            "metadata": {**(model.metadata or {}), **internal_call_metadata()},
            "disable_streaming": True,
            "cache": False,
        }
    )


def _offered(request: ModelRequest[Any]) -> dict[str, Any]:
    """What a candidate may call and must call, the tools of the structured response too, for the gates."""
    tools = []
    for tool in request.tools:
        with suppress(ValueError):  # a vendor's own tool, which no tool call of ours names
            tools.append(convert_to_openai_tool(tool))
    shape, choice = request.response_format, request.tool_choice
    if isinstance(shape, ToolStrategy):
        choice = "required"
    if isinstance(shape, AutoStrategy):
        untitled = isinstance(shape.schema, dict) and "title" not in shape.schema
        named: Any = {"title": _UNTITLED, **shape.schema} if untitled else shape.schema  # type: ignore[dict-item]
        shape = ToolStrategy(named)
    if isinstance(shape, ToolStrategy):
        tools += [
            {"type": "function", "function": {"name": spec.name, "parameters": spec.json_schema}}
            for spec in shape.schema_specs
        ]
    if not tools:
        return {}
    if isinstance(choice, str) and choice not in ("auto", "none", "any", "required"):
        choice = {"type": "function", "function": {"name": choice}}
    return {"tools": tools} | ({} if choice is None else {"tool_choice": choice})


def _fits_its_format(candidate: Candidate) -> str | None:
    """Where a structured response is wanted, the agent has read it out of the answer, unless other tools come first."""
    response: ModelResponse[Any] = candidate.response_fields["response"]
    if not candidate.response_fields["shaped"] or response.structured_response is not None:
        return None
    if len(response.result) > 1:  # the agent's note of what it could not read
        return f"its structured response does not fit: {response.result[-1].text[:200]}"
    return None if candidate.message.get("tool_calls") else "no structured response"


def _noted(response: ModelResponse[Any], note: Mapping[str, Any]) -> ModelResponse[Any]:
    """The response, with our note in its message's metadata."""
    result = [
        message.model_copy(update={"response_metadata": message.response_metadata | {"cappy_select": dict(note)}})
        if isinstance(message, AIMessage)
        else message
        for message in response.result
    ]
    return ModelResponse(result=result, structured_response=response.structured_response)


def _chat_model(model: str | BaseChatModel) -> BaseChatModel:
    if isinstance(model, str):
        made: BaseChatModel = init_chat_model(model)
        return made
    if not isinstance(model, BaseChatModel):
        raise InputError(f"a model is a chat model or a name for init_chat_model, got {type(model).__name__}")
    return model


class _Checked:
    """Stands for the models when the options are checked."""

    model = "any"

    async def complete(self, request: Request) -> list[Candidate]:
        raise NotImplementedError
