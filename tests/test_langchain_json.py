"""What one answer becomes in LangChain: through ChatCappy the same as from the bare ChatOpenAI, where that reads it."""

from __future__ import annotations

from typing import Annotated, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_cappy import ChatCappy
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from loopback import Reply
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    people: int = 0


class Place(TypedDict):
    """A city."""

    name: Annotated[str, ..., "its name"]


SCHEMA = {
    "title": "City",
    "description": "A city.",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
SCHEMAS = {"pydantic": City, "typed dict": Place, "dict": SCHEMA}
ASKED = "Name a city, as JSON."
LIMA = '{"name": "Lima"}'

TEXTS = {
    "plain": LIMA,
    "fenced": f"```json\n{LIMA}\n```",
    "fenced, no language": f"```\n{LIMA}\n```",
    "fenced, in prose": f"Here it is:\n```json\n{LIMA}\n```\nIs that all?",
    "a raw line break": '{"name": "Li\nma"}',
    "a raw tab": '{"name": "Li\tma"}',
    "cut off": '{"name": "Lima"',
    "a number as text": '{"name": "Lima", "people": "7"}',
    "one more key": '{"name": "Lima", "river": "Rímac"}',
    "NaN": '{"name": "Lima", "river": NaN}',
    "a key missing": '{"people": 3}',
    "prose": "Lima.",
    "a list": "[1]",
    "null": "null",
}
ARGUMENTS = {name: text for name, text in TEXTS.items() if "fenced" not in name} | {"fenced": TEXTS["fenced"], "": ""}


@pytest.fixture
def faces(loopback, default):
    """The bare model, and ours around it and by its names."""
    bare = ChatOpenAI(model="m", base_url=loopback.base, api_key="sk-test-1234", max_retries=0)
    options = {"samples": 1, "scorer": default, "max_retries": 0}
    by_name = {"api_base": loopback.base, "api_key": "sk-test-1234"}
    ours = [ChatCappy(models=[name], **by_name, **options) for name in ("openai:m", "openai/m")]
    return bare, [*ours, ChatCappy(models=[bare], **options)]


def outcome(ask, model):
    """What the caller gets; an error by its being one."""
    try:
        found = ask(model)
    except Exception:
        return "an error"
    if isinstance(found, dict) and "raw" in found:
        raw = found["raw"]
        unread = [(call["name"], call["args"]) for call in raw.invalid_tool_calls]
        return found["parsed"], found["parsing_error"] is None, raw.content, raw.tool_calls, unread
    return found


def same(faces, ask):
    """Ours give what the bare model gives, where that gives something."""
    bare, ours = faces
    expected = outcome(ask, bare)
    if expected == "an error":
        return 0
    for model in ours:
        assert repr(outcome(ask, model)) == repr(expected), model.models
    return 1


def call_of(arguments, name="City"):
    made = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Reply(message={"role": "assistant", "content": None, "tool_calls": [made]}, finish_reason="tool_calls")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_json_in_the_text_is_read_as_the_bare_model_does(loopback, faces, text):
    loopback.replies["m"] = [Reply(text=text)]
    agreed = 0
    for method in ("json_mode", "json_schema"):
        for schema in SCHEMAS.values():
            for raw in (False, True):
                agreed += same(
                    faces,
                    lambda m, schema=schema, method=method, raw=raw: m.with_structured_output(
                        schema, method=method, include_raw=raw
                    ).invoke(ASKED),
                )
    agreed += same(faces, lambda m: list(m.with_structured_output(City, method="json_mode").stream(ASKED))[-1])
    assert agreed >= 5


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_of_tools_are_read_as_the_bare_model_does(loopback, faces, arguments):
    loopback.replies["m"] = [call_of(arguments)]
    agreed = 0
    for schema in (City, SCHEMA):
        for raw in (False, True):
            agreed += same(
                faces,
                lambda m, schema=schema, raw=raw: m.with_structured_output(
                    schema, method="function_calling", include_raw=raw
                ).invoke(ASKED),
            )

    def calls(model):
        message = model.bind_tools([City]).invoke(ASKED)
        return message.tool_calls, [(call["name"], call["args"]) for call in message.invalid_tool_calls]

    agreed += same(faces, calls)
    loopback.replies["m"] = [call_of(arguments, "another")]
    agreed += same(faces, calls)
    assert agreed or arguments == TEXTS["a list"]  # of which the bare model makes an error


def test_strict_is_asked_for_as_the_bare_model_does(loopback, faces):
    ask = lambda m: m.with_structured_output(City, method="json_schema", strict=True).invoke(ASKED)  # noqa: E731
    loopback.replies["m"] = [Reply(text='{"name": "Lima", "people": 9}')]
    assert same(faces, ask) == 1
    assert [request["response_format"]["json_schema"]["strict"] for request in loopback.requests] == [True] * 4


def test_what_fits_wins_over_what_langchain_could_read_as_well(loopback, chat):
    unfit = [TEXTS["cut off"], TEXTS["a number as text"], TEXTS["prose"]]
    loopback.replies["a"] = [Reply(text=text) for text in unfit]
    loopback.replies["b"] = [Reply(text=TEXTS["fenced"])]
    answer = chat(samples=3).with_structured_output(City, method="json_schema", include_raw=True).invoke(ASKED)
    assert answer["parsed"] == City(name="Lima")
    assert answer["raw"].content == TEXTS["fenced"]  # as the model wrote it
    rejected = [row["rejected"] for row in answer["raw"].response_metadata["candidates"] if row["model"] == "openai/a"]
    assert all(rejected)
    assert len(rejected) == 3


@pytest.mark.parametrize("unfit", [call_of(LIMA, "another"), call_of('{"nam'), call_of('{"name": 3}')])
def test_an_agent_goes_on_as_with_the_bare_model(loopback, faces, unfit):
    def population(name: str) -> int:
        """Inhabitants of a city."""
        return len(name)

    bare, ours = faces
    steps = []
    for model in (bare, *ours):
        loopback.replies["m"] = [unfit, Reply(text="Done.")]
        messages = create_agent(model, [population]).invoke({"messages": [HumanMessage("How many?")]})["messages"]
        steps.append([(message.type, message.text) for message in messages])
    assert steps == [steps[0]] * 4
