"""Who takes part in a `CappySelector`: runnables, or candidates from upstream, as providers of a `Selector`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.documents import Document
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from cappy_select import (
    Candidate,
    NoCandidates,
    ProviderError,
    Request,
    Selection,
    Selector,
    Usage,
)
from cappy_select.core import (
    Prompt,
    dollars_of,
)
from langchain_cappy.messages import as_candidate, usage_of
from langchain_cappy.provider import failure_in

_racing: ContextVar[Race] = ContextVar("cappy_race")
"""How an entrant gets its `Race`: every call of the selection is a task of this context."""


class Race:
    """One input on its way through the entrants. As a context it raises what was not for us to keep."""

    def __init__(self, call: Callable[[Runnable[Any, Any], str], Awaitable[Any]], most: int | None) -> None:
        """`call` runs a runnable under a tag; `most` calls at a time, None for all."""
        self.call, self._most = call, most
        self._stopped_by: BaseException | None = None

    async def run(self, selector: Selector, prompt: Prompt) -> Selection:
        """The selection, on this event loop."""
        self.places = asyncio.Semaphore(self._most or sys.maxsize)
        token = _racing.set(self)
        try:
            self._selecting = asyncio.ensure_future(selector.aselect(prompt))
        finally:
            _racing.reset(token)
        return await self._selecting

    def stop(self, error: BaseException) -> None:
        """End it: an interrupt of a graph or of the program is no failure of an entrant."""
        self._stopped_by = self._stopped_by or error
        self._selecting.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._stopped_by is not None:
            raise self._stopped_by


class Entrant:
    """A runnable: one run of it is one answer."""

    def __init__(self, name: str, runnable: Runnable[Any, Any]) -> None:
        self._name, self._runnable = name, runnable

    @property
    def model(self) -> str:
        """Its name."""
        return self._name

    async def complete(self, request: Request) -> list[Candidate]:
        """One run."""
        race = _racing.get()
        try:
            async with race.places:
                runnable = cached_apart(self._runnable, request.sample)
                output = await race.call(runnable, f"cappy:{self._name}:{request.sample}")
            return [candidate_of(output, model=self._name)]
        except (Exception, asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # by the fan-out
            if not isinstance(error, Exception) or _is_graphs_own(error):
                race.stop(error)
            raise _failure(error, self._name) from error


class Given:
    """Candidates that are there already."""

    model = "upstream"

    def __init__(self, candidates: list[Candidate]) -> None:
        self._candidates = candidates

    def unsupported(self, params: Mapping[str, Any]) -> Collection[str]:
        """Nothing: all of them are one call."""
        return ()

    async def complete(self, request: Request) -> list[Candidate]:
        """All of them."""
        return self._candidates


def candidate_of(output: Any, *, model: str) -> Candidate:
    """An output as a candidate, which keeps it."""
    if isinstance(output, AIMessage):
        cost = output.response_metadata.get("cost")  # of a ChatCappy
        usage = usage_of(output) or Usage()
        return as_candidate(output, model=model, usage=usage, cost=dollars_of(cost), output=output)
    message = {"role": "assistant", "content": _text(output)}
    if isinstance(output, Mapping) and isinstance(output.get("role"), str) and "content" in output:
        message = dict(output)
    return Candidate(model=model, message=message, response_fields={"output": output})


def output_of(candidate: Candidate) -> Any:
    """What the candidate was made of."""
    return candidate.response_fields["output"]


def _text(output: Any) -> str:
    """What is scored of an output."""
    if output is None or isinstance(output, str):
        return output or ""
    if isinstance(output, BaseMessage | Document):
        return str(_plain(output))
    try:
        return json.dumps(output, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):  # keys that are no str, circles
        return str(output)


def _plain(value: Any) -> Any:
    """A value that JSON has no form for."""
    if isinstance(value, BaseMessage):
        return str(value.text)
    if isinstance(value, Document):
        return value.page_content
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _is_graphs_own(error: BaseException) -> bool:
    errors = sys.modules.get("langgraph.errors")  # not imported: nobody can have raised one
    return errors is not None and isinstance(error, errors.GraphBubbleUp)


def _failure(error: BaseException, model: str) -> ProviderError:
    """What went wrong in a runnable, in our words and without secrets."""
    name = type(error).__name__
    if not isinstance(error, Exception):
        return ProviderError(name, kind="cancelled", model=model)
    failure = failure_in(error, None, model=model)
    if isinstance(error, NoCandidates | ProviderError):  # of a ChatCappy in it: named and priced already
        message, usage, cost = " ".join(str(error).split())[:500], error.usage, error.cost
        kind = error.kind if isinstance(error, ProviderError) else failure.kind
        return ProviderError(message, kind=kind, model=model, usage=usage, cost=cost)
    return ProviderError(f"{name}: {failure.message}", kind=failure.kind, model=model)


def cached_apart(part: Any, sample: int) -> Any:
    """The runnable, with models whose cache keeps this sample apart from the others; the first is as it is."""
    if sample == 0:
        return part
    if isinstance(part, BaseLanguageModel):
        own = part.cache if isinstance(part.cache, BaseCache) else get_llm_cache()
        return part if own is None or part.cache is False else part.model_copy(update={"cache": _Apart(own, sample)})
    if isinstance(part, Mapping):
        changed = {key: cached_apart(value, sample) for key, value in part.items()}
        return part if all(changed[key] is value for key, value in part.items()) else changed
    if isinstance(part, list | tuple):
        parts = [cached_apart(value, sample) for value in part]
        return part if all(new is old for new, old in zip(parts, part, strict=True)) else type(part)(parts)
    if isinstance(part, Runnable) and isinstance(part, BaseModel):
        fields = {name: part.__dict__[name] for name in type(part).model_fields if name in part.__dict__}
        changed = {name: cached_apart(value, sample) for name, value in fields.items()}
        update = {name: value for name, value in changed.items() if value is not fields[name]}
        return part.model_copy(update=update) if update else part
    return part


class _Apart(BaseCache):
    """A cache in which one sample of several has entries of its own."""

    def __init__(self, cache: BaseCache, sample: int) -> None:
        self._cache, self._suffix = cache, f"---cappy sample {sample}"

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return self._cache.lookup(prompt, llm_string + self._suffix)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        self._cache.update(prompt, llm_string + self._suffix, return_val)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await self._cache.alookup(prompt, llm_string + self._suffix)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await self._cache.aupdate(prompt, llm_string + self._suffix, return_val)

    def clear(self, **kwargs: Any) -> None:
        self._cache.clear(**kwargs)
