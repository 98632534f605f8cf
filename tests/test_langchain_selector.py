"""Runnables raced by CappySelector, and candidates from upstream filtered by it."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_cappy import CappySelector, ChatCappy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.documents import Document
from langchain_core.exceptions import ModelAuthenticationError
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda, RunnablePassthrough
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from loopback import Reply
from pydantic import BaseModel

from cappy_select import JsonSchema, NoCandidates, NoGoodAnswer, Vote

QUESTION = "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"
QUESTION_IN = {"question": QUESTION}
RIGHT, WRONG = "The Marañón and the Ucayali.", "Fine weather on Monday."


class Answer(BaseModel):
    answer: str


def always(output):
    return RunnableLambda(lambda _: output)


@pytest.fixture
def race(default):
    """Makes a race between these, with the session's scorer."""

    def make(*runnables, **options) -> CappySelector:
        return CappySelector.from_runnables(list(runnables), scorer=default, **options)

    return make


@pytest.fixture
def chat(loopback, default):
    """Makes a chat model of the loopback server."""

    def make(name: str, **options) -> ChatCappy:
        given = {"samples": 1, "scorer": default, "api_key": "sk-secret", "api_base": loopback.base, "max_retries": 0}
        return ChatCappy(models=[f"openai/{name}"], **given | options)

    return make


@pytest.fixture
def chain(chat):
    """Makes a chain of a prompt, a chat model of the loopback server and a parser."""

    def make(name: str, **options):
        return ChatPromptTemplate.from_template("{question}") | chat(name, **options) | StrOutputParser()

    return make


def test_a_chain_raced_against_another_returns_the_better_output(loopback, race, chain):
    loopback.replies["a"], loopback.replies["b"] = [Reply(text=WRONG)], [Reply(text=RIGHT)]
    selector = race(chain("a"), chain("b"))
    assert selector.invoke({"question": QUESTION}) == RIGHT
    assert asyncio.run(selector.ainvoke({"question": QUESTION})) == RIGHT
    assert [request["messages"][0]["content"] for request in loopback.requests] == [QUESTION] * 4


def test_one_chain_that_fails_does_not_sink_the_other(loopback, race, chain):
    loopback.replies["a"], loopback.replies["b"] = [Reply(status=401, error="bad key sk-secret-123456")], [Reply()]
    selector = race(chain("a"), chain("b"), include_scores=True)
    for result in (selector.invoke(QUESTION_IN), asyncio.run(selector.ainvoke(QUESTION_IN))):
        assert result["output"] == "ok"
        (failure,) = result["failures"]
        assert (failure["model"], failure["kind"]) == ("RunnableSequence 1", "auth")
        assert "sk-secret" not in str(result)


def test_when_all_fail_no_candidates_names_each(loopback, race, chain):
    def broken(_: Any):
        raise KeyError("x")

    selector = race(chain("a"), broken)
    loopback.replies["a"] = [Reply(status=401)]
    for call in (selector.invoke, lambda given: asyncio.run(selector.ainvoke(given))):
        with pytest.raises(NoCandidates) as caught:
            call(QUESTION_IN)
        assert [(reason.model, reason.kind) for reason in caught.value.exceptions] == [
            ("RunnableSequence", "auth"),
            ("broken", "invalid_response"),
        ]
        assert "broken: invalid_response: KeyError: 'x'" in str(caught.value)
    with pytest.raises(ModelAuthenticationError):  # failures of one kind are LangChain's own error too
        race(chain("a")).invoke(QUESTION_IN)


@pytest.mark.parametrize(
    "output",
    [AIMessage(RIGHT), Answer(answer=RIGHT), {"answer": RIGHT}, Document(RIGHT), [Document(RIGHT)], {("k",): RIGHT}],
    ids=lambda output: type(output).__name__,
)
def test_the_output_is_returned_as_it_is(race, output):
    assert race(always(WRONG), always(output)).invoke(QUESTION) is output
    assert asyncio.run(race(always(output), always(None)).ainvoke(QUESTION)) is output


def test_what_is_scored_of_an_output(race, default):
    calls = AIMessage("", tool_calls=[{"name": "find", "args": {"q": "river"}, "id": "1"}])
    blocks = AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": RIGHT}])
    outputs = [
        RIGHT,
        AIMessage(RIGHT),
        blocks,
        Document(RIGHT),
        calls,
        Answer(answer=RIGHT),
        {"a": [HumanMessage("b")]},
    ]
    texts = [*[RIGHT] * 4, 'find({"q": "river"})', f'{{"answer": "{RIGHT}"}}', '{"a": ["b"]}']
    result = race(*map(always, outputs), include_scores=True).invoke(QUESTION)
    scores = {str(row["output"]): row["score"] for row in result["candidates"]}
    expected = default.score(QUESTION, texts)
    assert [scores[str(output)] for output in outputs] == expected.tolist()


def test_every_runnable_is_called_samples_times_at_the_same_time(race):
    together = threading.Barrier(4, timeout=20)  # nobody goes on before all four are there
    seen = []

    def meet(given):
        seen.append(given)
        together.wait()
        return RIGHT

    given = {"question": QUESTION}
    assert race(meet, meet, samples=2).invoke(given) == RIGHT
    assert all(one is given for one in seen)


async def test_async_runnables_run_at_the_same_time(race):
    together = asyncio.Barrier(4)

    async def meet(_):
        async with asyncio.timeout(20):
            await together.wait()
        return RIGHT

    assert await race(meet, meet, samples=2).ainvoke(QUESTION) == RIGHT


def test_max_concurrency_bounds_the_calls_at_a_time(race):
    running, most, lock = 0, 0, threading.Lock()

    def count(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return RIGHT

    race(count, count, samples=3).invoke(QUESTION, {"max_concurrency": 2})
    assert most == 2


def test_a_chain_that_hangs_is_not_waited_for(race):
    released, cancelled = threading.Event(), []

    async def ahang(_):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    hang = RunnableLambda(lambda _: released.wait(60), afunc=ahang)
    selector = race(hang, always(RIGHT), grace_s=0.1, include_scores=True)
    for result in (selector.invoke(QUESTION), asyncio.run(selector.ainvoke(QUESTION))):
        assert (result["output"], [failure["kind"] for failure in result["failures"]]) == (RIGHT, ["cancelled"])
    assert cancelled == [True]
    with pytest.raises(NoCandidates) as caught:
        race(hang, deadline_s=0.2).invoke(QUESTION)
    assert "no answer within the deadline of 0.2 s" in str(caught.value)
    released.set()


def test_a_runnable_with_only_one_of_the_two_calls_works(race):
    async def only_async(_):
        return RIGHT

    assert asyncio.run(race(only_async).ainvoke(QUESTION)) == RIGHT
    assert race(lambda _: RIGHT).invoke(QUESTION) == RIGHT
    assert asyncio.run(race(lambda _: RIGHT).ainvoke(QUESTION)) == RIGHT


def test_context_variables_reach_the_runnables(race):
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set(RIGHT)
    assert race(lambda _: variable.get()).invoke(QUESTION) == RIGHT
    assert asyncio.run(race(lambda _: variable.get()).ainvoke(QUESTION)) == RIGHT


class Counting(BaseCallbackHandler):
    """Counts chat models, and keeps each run's parent and tags."""

    def __init__(self):
        self.models, self.parents, self.tags, self.names = 0, {}, {}, {}

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, tags=None, name=None, **_):
        self.parents[run_id], self.tags[run_id], self.names[run_id] = parent_run_id, tags, name

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, tags=None, **_):
        self.models += 1
        self.parents[run_id], self.tags[run_id], self.names[run_id] = parent_run_id, tags, "model"


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_callbacks_see_every_run_once_as_a_child(loopback, race, chain, way):
    counting, usage = Counting(), UsageMetadataCallbackHandler()
    selector = race(chain("a"), chain("b"), samples=2)
    config = {"callbacks": [counting, usage], "tags": ["mine"]}
    asyncio.run(selector.ainvoke(QUESTION_IN, config)) if way == "ainvoke" else selector.invoke(QUESTION_IN, config)
    assert counting.models == len(loopback.requests) == 4
    assert sum(said["input_tokens"] for said in usage.usage_metadata.values()) == loopback.billed["prompt_tokens"] == 40
    assert sum(said["output_tokens"] for said in usage.usage_metadata.values()) == loopback.billed["completion_tokens"]
    (root,) = [run for run, parent in counting.parents.items() if parent is None]
    assert counting.names[root] == "CappySelector"
    assert "nostream" not in counting.tags[root]
    assert list(counting.parents.values()).count(root) == 4
    assert all({"nostream", "mine"} <= set(tags) for run, tags in counting.tags.items() if run != root)
    assert {tag for tags in counting.tags.values() for tag in tags if tag.startswith("cappy:")} == {
        f"cappy:RunnableSequence {chain}:{sample}" for chain in (1, 2) for sample in (0, 1)
    }


class Bare(Runnable):
    """Hands no config on."""

    def __init__(self, inner):
        self.inner = inner

    def invoke(self, given, config=None, **kwargs):
        return self.inner.invoke(given)

    async def ainvoke(self, given, config=None, **kwargs):
        return await self.inner.ainvoke(given)


def test_a_runnable_that_hands_no_config_on_is_a_child_all_the_same(race, chat):
    counting = Counting()
    selector = race(Bare(chat("a")))
    selector.invoke(QUESTION, {"callbacks": [counting]})
    asyncio.run(selector.ainvoke(QUESTION, {"callbacks": [counting]}))
    assert [tags for run, tags in counting.tags.items() if counting.names[run] == "model"] == [
        ["cappy:Bare:0", "nostream"]
    ] * 2


def graph_of(node):
    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile(checkpointer=InMemorySaver())


def test_langgraph_streams_no_token_of_a_candidate(race):
    models = [GenericFakeChatModel(messages=iter([AIMessage(text)])) for text in (WRONG, RIGHT)]
    selector = race(*models)

    def node(state):
        return {"messages": [selector.invoke(state["messages"])]}

    given = {"messages": [HumanMessage(QUESTION)]}
    config = {"configurable": {"thread_id": "1"}}
    streamed = [message.text for message, _ in graph_of(node).stream(given, config, stream_mode="messages")]
    assert streamed == [RIGHT]


async def test_langgraph_streams_no_token_of_a_candidate_async(race):
    models = [GenericFakeChatModel(messages=iter([AIMessage(text)])) for text in (WRONG, RIGHT)]
    selector = race(*models)

    async def node(state):
        return {"messages": [await selector.ainvoke(state["messages"])]}

    given = {"messages": [HumanMessage(QUESTION)]}
    config = {"configurable": {"thread_id": "1"}}
    stream = graph_of(node).astream(given, config, stream_mode="messages")
    assert [message.text async for message, _ in stream] == [RIGHT]


def test_an_interrupt_of_a_graph_is_no_failure(race):
    released, ended = threading.Event(), threading.Event()

    def hangs_at_first(_):
        released.wait(20)
        ended.set()
        return WRONG

    selector = race(lambda _: interrupt("Which rivers?"), hangs_at_first)
    graph = graph_of(lambda state: {"messages": [selector.invoke(state["messages"])]})
    config = {"configurable": {"thread_id": "1"}}
    paused = graph.invoke({"messages": [HumanMessage(QUESTION)]}, config)
    assert paused["__interrupt__"][0].value == "Which rivers?"
    assert not ended.is_set()  # it was not waited for
    released.set()
    assert graph.invoke(Command(resume=RIGHT), config)["messages"][-1].text == RIGHT


async def test_an_interrupt_ends_the_race_at_once_async(race):
    async def asks(_):
        raise GraphInterrupt(())

    async def hangs(_):
        await asyncio.Event().wait()

    async with asyncio.timeout(10) as limit:
        with pytest.raises(GraphInterrupt):
            await race(asks, hangs).ainvoke(QUESTION)
    assert not limit.expired()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_the_program_is_not_swallowed(race, error):
    def ends(_):
        raise error

    with pytest.raises(error):
        race(ends, always(RIGHT)).invoke(QUESTION)


async def test_cancelled_it_cancels_what_runs(race):
    begun, cancelled = asyncio.Event(), []

    async def hang(_):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    task = asyncio.create_task(race(hang).ainvoke(QUESTION))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [True]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_cache_keeps_samples_apart(loopback, race, chain, way):
    cache = InMemoryCache()
    loopback.replies["a"] = [Reply(text=WRONG), Reply(text=RIGHT), Reply(text="from the server")]
    model = {"question": RunnablePassthrough()} | chain("a", cache=cache)
    selector = race(model, samples=2, include_scores=True)
    for _ in range(2):
        result = selector.invoke(QUESTION) if way == "invoke" else asyncio.run(selector.ainvoke(QUESTION))
        assert {row["output"] for row in result["candidates"]} == {WRONG, RIGHT}
    assert len(loopback.requests) == 2
    assert model.invoke(QUESTION) in {WRONG, RIGHT}  # the first sample has the chain's own entry
    assert len(loopback.requests) == 2


def test_gates_strategies_and_thresholds_work_as_everywhere(race):
    gates = [JsonSchema({"type": "object", "required": ["rivers"]}), lambda candidate: "Nile" not in candidate.text]
    outputs = ({"answer": RIGHT}, {"rivers": ["The Nile"]}, Answer(answer=RIGHT), {"rivers": [RIGHT]})
    assert race(*map(always, outputs), gates=gates).invoke(QUESTION) == {"rivers": [RIGHT]}
    assert race(*map(always, ("7", RIGHT, "7")), strategy=Vote()).invoke(QUESTION) == "7"
    with pytest.raises(NoGoodAnswer):
        race(always(RIGHT), abstain_below=5.0).invoke(QUESTION)
    hang = RunnableLambda(lambda _: threading.Event().wait(60))
    assert race(hang, always(RIGHT), stop_when=-5.0).invoke(QUESTION) == RIGHT
    cut = AIMessage(RIGHT, response_metadata={"finish_reason": "length"})
    assert race(always(cut), always(WRONG)).invoke(QUESTION) == WRONG


def test_names_tell_runnables_apart(race, default):
    def first(_):
        return RIGHT

    assert list(race(first, first, {"a": first}).runnables) == ["first 1", "first 2", "RunnableParallel<a>"]
    named = CappySelector.from_runnables({"mine": first}, scorer=default, include_scores=True)
    assert named.invoke(QUESTION)["candidates"][0]["model"] == "mine"


def test_it_is_a_runnable_like_any_other(race):
    calls = []

    def second_time(given):
        calls.append(given)
        if len(calls) == 1:
            raise ValueError("not yet")
        return RIGHT

    selector = race(always(WRONG), lambda given: given.split("? ")[-1])
    questions = [f"{QUESTION} {answer}" for answer in (RIGHT, "The Marañón and the Ucayali rivers.")]
    expected = [RIGHT, "The Marañón and the Ucayali rivers."]
    assert selector.batch(questions) == expected
    assert asyncio.run(selector.abatch(questions)) == expected
    assert list(selector.stream(questions[0])) == [RIGHT]

    async def astream():
        return [chunk async for chunk in selector.astream(questions[0])]

    assert asyncio.run(astream()) == [RIGHT]
    assert race(lambda _, answer: answer).bind(answer=RIGHT).invoke(QUESTION) == RIGHT
    assert (RunnablePassthrough() | selector | StrOutputParser()).invoke(questions[0]) == RIGHT
    assert race(second_time).with_retry(wait_exponential_jitter=False).invoke(QUESTION) == RIGHT
    calls.clear()
    assert race(second_time).with_fallbacks([always("fallback")]).invoke(QUESTION) == "fallback"


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_the_configuration_is_written_and_read(default):
    prompts = [PromptTemplate.from_template(f"{word}: {{question}}") for word in ("Answer", "Say")]
    selector = CappySelector.from_runnables(dict(zip("ab", prompts, strict=True)), samples=2, grace_s=1.5)
    again = load(dumpd(selector), valid_namespaces=["langchain_cappy"], allowed_objects=[CappySelector, PromptTemplate])
    assert type(again) is CappySelector
    assert (again.runnables, again.samples, again.grace_s) == (selector.runnables, 2, 1.5)
    assert again.invoke(QUESTION_IN) == selector.invoke(QUESTION_IN)


def test_a_copy_with_other_fields_uses_them(race):
    selector = race(always(WRONG), always(RIGHT))
    copy = selector.model_copy(update={"runnables": {"only": always(WRONG)}})
    assert (copy.invoke(QUESTION), selector.invoke(QUESTION)) == (WRONG, RIGHT)
    selector.gates = (lambda candidate: candidate.text != RIGHT,)
    assert selector.invoke(QUESTION) == WRONG
    configurable = race(always(RIGHT)).configurable_fields(include_scores=ConfigurableField(id="scores"))
    assert configurable.invoke(QUESTION) == RIGHT
    assert configurable.with_config(configurable={"scores": True}).invoke(QUESTION)["output"] == RIGHT


def test_the_schema_is_the_first_runnables(race):
    selector = race(PromptTemplate.from_template("{question} {context}"))
    assert set(selector.get_input_jsonschema()["properties"]) == {"question", "context"}
    assert CappySelector(scorer=selector.scorer).get_input_jsonschema()
