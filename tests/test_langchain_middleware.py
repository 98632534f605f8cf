from __future__ import annotations

import json

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_cappy import CappyMiddleware
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt
from loopback import Reply
from openai import AuthenticationError
from pydantic import BaseModel

from cappy_select import InputError, NoCandidates

QUESTION = "How many people live in Iquitos and Pucallpa together?"
RIGHT = "Iquitos and Pucallpa together have 797,000 people."
WRONG = ("I like rivers.", "Bananas are yellow.")


@tool
def population(city: str) -> int:
    """Inhabitants of a city."""
    return {"Iquitos": 471_000, "Pucallpa": 326_000}[city]


@tool
def add(first: int, second: int) -> int:
    """The sum of two numbers."""
    return first + second


def calls(name, *arguments, text=None):
    """A reply that calls a tool, once for each arguments."""
    tool_calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for number, given in enumerate(arguments)
    ]
    message = {"role": "assistant", "content": text, "tool_calls": tool_calls}
    return Reply(message=message, finish_reason="tool_calls")


STEPS = [
    calls("weather", {"city": "Iquitos"}, text="Off to the weather."),  # no such tool
    calls("population", {"town": "Iquitos"}, text="A town, surely."),  # not its schema
    calls("population", {"city": "Iquitos"}, {"city": "Pucallpa"}),
    calls("add", {"first": "many", "second": 326_000}),
    calls("sum", {"first": 471_000, "second": 326_000}),
    calls("add", {"first": 471_000, "second": 326_000}),
    *(Reply(text=text) for text in (WRONG[0], RIGHT, WRONG[1])),
]


@pytest.fixture
def model(loopback):
    """A chat model of another package, which streams what it says."""
    return ChatOpenAI(model="a", api_key="sk-secret-1234", base_url=loopback.base, max_retries=0)


@pytest.fixture
def agent(loopback, model, default):
    loopback.replies["a"] = list(STEPS)

    def make(samples=3):
        middleware = CappyMiddleware(samples=samples, scorer=default)
        return create_agent(model, [population, add], middleware=[middleware])

    return make


ASKED = {"messages": [{"role": "user", "content": QUESTION}]}


def check(messages, loopback):
    assert [m.content for m in messages if isinstance(m, ToolMessage)] == ["471000", "326000", "797000"]
    assert messages[-1].content == RIGHT
    assert len(loopback.requests) == 9
    assert [m["role"] for m in loopback.requests[-1]["messages"]] == [
        "user", "assistant", "tool", "tool", "assistant", "tool",
    ]  # fmt: skip


def test_an_agent_does_its_task_though_one_candidate_in_three_is_right(agent, loopback):
    messages = agent().invoke(ASKED)["messages"]
    check(messages, loopback)
    note = messages[-1].response_metadata["cappy_select"]
    assert note["score"] == max(candidate["score"] for candidate in note["candidates"])
    first = next(m for m in messages if isinstance(m, AIMessage)).response_metadata["cappy_select"]
    assert sorted(str(candidate["rejected"]) for candidate in first["candidates"]) == [
        "None",
        "calls the tool 'weather', which was not offered",
        "the arguments of population breaks the schema at $: 'city' is a required property",
    ]


async def test_an_agent_does_its_task_asynchronously_too(agent, loopback):
    check((await agent().ainvoke(ASKED))["messages"], loopback)


def test_usage_handlers_count_every_call_once(agent, loopback):
    handler = UsageMetadataCallbackHandler()
    agent().invoke(ASKED, {"callbacks": [handler]})
    (counted,) = handler.usage_metadata.values()
    assert (counted["input_tokens"], counted["output_tokens"]) == (9 * 10, 9 * 4)


def shown(pieces):
    """Text and tool calls of what a user sees."""
    calls = ("tool_call_chunks", "tool_calls", "invalid_tool_calls")
    return "\n".join(f"{message.text} {[getattr(message, name, '') for name in calls]}" for message in pieces)


def nothing_leaked(seen):
    assert RIGHT in seen.replace("\n", "")
    assert not [word for word in ("weather", "town", "many", "sum", *WRONG) if word in seen]


def test_without_the_middleware_this_model_streams_what_it_says(agent, loopback, model):
    loopback.replies["a"] = [Reply(text=WRONG[0])]
    pieces = [message for message, _ in create_agent(model, []).stream(ASKED, stream_mode="messages")]
    assert len(pieces) > 3
    assert "".join(message.text for message in pieces) == WRONG[0]


def test_no_losing_token_is_in_the_stream(agent):
    nothing_leaked(shown(message for message, _ in agent().stream(ASKED, stream_mode="messages")))


async def test_no_losing_token_is_in_the_asynchronous_stream(agent):
    nothing_leaked(shown([message async for message, _ in agent().astream(ASKED, stream_mode="messages")]))


def test_no_losing_token_is_in_the_event_stream(agent):
    run = agent().stream_events(ASKED, version="v3")
    nothing_leaked(shown(message.output for message in run.messages))


async def test_no_losing_token_is_in_the_asynchronous_event_stream(agent):
    run = await agent().astream_events(ASKED, version="v3")
    nothing_leaked(shown([await message.output async for message in run.messages]))


class Answer(BaseModel):
    """The answer."""

    people: int


ANSWER = {"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]}


def test_a_structured_response_that_does_not_fit_can_not_win(loopback, model, default):
    loopback.replies["a"] = [calls("Answer", {"people": "lots"}), calls("Answer", {"people": 797_000})]
    middleware = CappyMiddleware(samples=2, scorer=default)
    agent = create_agent(model, [], middleware=[middleware], response_format=ToolStrategy(Answer))
    assert agent.invoke(ASKED)["structured_response"] == Answer(people=797_000)
    assert len(loopback.requests) == 2


@pytest.mark.parametrize("shape", [ToolStrategy(Answer), Answer, ANSWER])
def test_text_can_not_win_where_a_structured_response_is_wanted(loopback, model, default, shape):
    def answer(request):
        (name,) = [tool["function"]["name"] for tool in request.get("tools", ())] or [None]
        first = len(loopback.requests) % 2
        right = Reply(text='{"people": 797000}') if name is None else calls(name, {"people": 797_000})
        return Reply(text=RIGHT) if first else right

    loopback.answer = answer
    agent = create_agent(model, [], middleware=[CappyMiddleware(samples=2, scorer=default)], response_format=shape)
    found = agent.invoke(ASKED)["structured_response"]
    assert (found if isinstance(found, dict) else found.model_dump()) == {"people": 797_000}
    assert len(loopback.requests) == 2


def test_tools_are_checked_beside_a_schema_without_a_name(loopback, model, default):
    loopback.replies["a"] = [STEPS[0], STEPS[2], Reply(text='{"people": 797000}')]
    middleware = CappyMiddleware(samples=2, scorer=default)
    agent = create_agent(model, [population], middleware=[middleware], response_format=ANSWER)
    first = next(m for m in agent.invoke(ASKED)["messages"] if isinstance(m, AIMessage))
    assert [call["name"] for call in first.tool_calls] == ["population", "population"]
    rejected = [candidate["rejected"] for candidate in first.response_metadata["cappy_select"]["candidates"]]
    assert rejected == [None, "calls the tool 'weather', which was not offered"]


def test_nothing_leaks_of_a_model_that_is_bound_either(loopback, model, default):
    loopback.replies["a"] = [Reply(text=WRONG[0]), Reply(text=RIGHT)]

    @wrap_model_call
    def bound(request, handler):
        return handler(request.override(model=model.with_config(tags=["x"]).bind(temperature=0.9)))

    agent = create_agent(model, [], middleware=[bound, CappyMiddleware(samples=2, scorer=default)])
    nothing_leaked(shown(message for message, _ in agent.stream(ASKED, stream_mode="messages")))
    assert loopback.requests[0]["temperature"] == 0.9


def test_content_that_is_not_text_is_for_the_model_and_not_for_the_scorer(loopback, default):
    class Seeing(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    video = {"role": "user", "content": [{"type": "video", "file_id": "1"}, {"type": "text", "text": QUESTION}]}
    model = Seeing(messages=iter([AIMessage(WRONG[0]), AIMessage(RIGHT)]))
    middleware = CappyMiddleware(samples=2, scorer=default)
    agent = create_agent(model, [{"google_search": {}}], middleware=[middleware])
    assert agent.invoke({"messages": [video]})["messages"][-1].content == RIGHT


async def test_the_older_event_stream_can_leave_the_losers_out(agent):
    events = [event async for event in agent().astream_events(ASKED, version="v2", exclude_tags=["nostream"])]
    assert not [word for word in WRONG if word in str(events)]


def test_when_no_candidate_fits_the_agent_deals_with_the_first(loopback, agent):
    loopback.replies["a"] = [STEPS[0]] * 3 + [Reply(text=RIGHT)]
    messages = agent().invoke(ASKED)["messages"]
    assert messages[2].content.startswith("Error: weather is not a valid tool")
    assert "0 usable answers" in messages[1].response_metadata["cappy_select"]["no_usable_answer"]
    assert messages[-1].content == RIGHT


def test_one_failed_call_does_not_sink_the_step(loopback, agent):
    loopback.replies["a"] = [Reply(status=500), Reply(text=RIGHT)]
    message = agent(samples=2).invoke(ASKED)["messages"][-1]
    assert message.content == RIGHT
    assert [failure["kind"] for failure in message.response_metadata["cappy_select"]["failures"]] == ["server"]


def test_when_all_calls_fail_the_agent_gets_the_models_own_error(loopback, agent):
    loopback.replies["a"] = [Reply(status=401)]
    with pytest.raises(AuthenticationError) as caught:
        agent().invoke(ASKED)
    assert isinstance(caught.value.__cause__, NoCandidates)
    assert len(caught.value.__cause__.exceptions) == 3


def test_several_models_are_asked_and_the_best_answer_wins(loopback, model, default):
    loopback.replies["a"], loopback.replies["b"] = [Reply(text=WRONG[0])], [Reply(text=RIGHT)]
    other = model.model_copy(update={"model_name": "b"})
    agent = create_agent(model, [], middleware=[CappyMiddleware([model, other], samples=2, scorer=default)])
    assert agent.invoke(ASKED)["messages"][-1].content == RIGHT
    assert (loopback.calls_to("a"), loopback.calls_to("b")) == (2, 2)


def test_the_temperature_reaches_the_models(loopback, model, default):
    loopback.replies["a"] = [Reply(text=RIGHT)]
    create_agent(model, [], middleware=[CappyMiddleware(samples=2, temperature=0.9, scorer=default)]).invoke(ASKED)
    assert [request["temperature"] for request in loopback.requests] == [0.9, 0.9]


def test_an_interrupt_of_the_graph_is_no_failed_candidate(loopback, model, default):
    loopback.replies["a"] = [Reply(text=RIGHT)]

    class Doubtful(CappyMiddleware):
        def wrap_model_call(self, request, handler):
            def asking(marked):
                interrupt("go on?")
                return handler(marked)

            return super().wrap_model_call(request, asking)

    agent = create_agent(model, [], middleware=[Doubtful(samples=2, scorer=default)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert agent.invoke(ASKED, config)["__interrupt__"][0].value == "go on?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be"),
        ({"models": []}, "models must be"),
        ({"models": [3]}, "a model is a chat model"),
        ({"timeout": -1}, "deadline_s"),
    ],
)
def test_a_bad_argument_is_said_when_the_middleware_is_made(options, message, default):
    with pytest.raises(InputError, match=message):
        CappyMiddleware(**{"scorer": default} | options)
