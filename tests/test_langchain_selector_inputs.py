"""What CappySelector takes: candidates from upstream, inputs of many shapes, options; and what it refuses."""

from __future__ import annotations

import asyncio

import pytest
from langchain_cappy import CappySelector
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

from cappy_select import InputError, NoCandidates, Vote

QUESTION = "The Marañón and the Ucayali meet near Nauta. Which rivers meet near Nauta?"
RIGHT, WRONG = "The Marañón and the Ucayali.", "Peru has many rivers."


def always(output):
    return RunnableLambda(lambda _: output)


@pytest.mark.parametrize(
    "candidates",
    [
        [WRONG, RIGHT],
        [AIMessage(WRONG), AIMessage(RIGHT)],
        (Document(WRONG, metadata={"a": 1}), Document(RIGHT)),
        [{"answer": WRONG}, {"answer": RIGHT}],
        [{"role": "assistant", "content": WRONG}, {"role": "assistant", "content": RIGHT}],
        [WRONG, "", RIGHT, None, object()],
    ],
    ids=lambda candidates: type(candidates[0]).__name__,
)
def test_candidates_from_upstream_are_filtered(default, candidates):
    best = candidates[2 if len(candidates) > 2 else 1]
    selector = CappySelector(scorer=default)
    given = {"instruction": QUESTION, "candidates": candidates}
    assert selector.invoke(given) is best
    assert asyncio.run(selector.ainvoke(given)) is best


def test_candidates_by_name_come_from_a_parallel_step(default):
    candidates = RunnableParallel(a=always(WRONG), b=always(RIGHT), c=always(None))
    filtered = RunnableParallel(question=RunnablePassthrough(), candidates=candidates) | CappySelector(
        scorer=default, include_scores=True
    )
    result = filtered.invoke(QUESTION)
    scores = default.score(QUESTION, [RIGHT, WRONG]).tolist()
    assert result["output"] == RIGHT
    assert result["score"] == scores[0]
    assert result["candidates"] == [
        {"output": RIGHT, "model": "b", "score": scores[0], "rejected": None},
        {"output": WRONG, "model": "a", "score": scores[1], "rejected": None},
        {"output": None, "model": "c", "score": None, "rejected": "empty answer"},
    ]


def test_too_few_candidates_are_no_candidates(default):
    selector = CappySelector(scorer=default, min_usable=2)
    for candidates, why in (([], "0 candidates came"), ([RIGHT], "1 candidates came"), ([RIGHT, ""], "1 usable")):
        with pytest.raises(NoCandidates, match=why):
            selector.invoke({"instruction": QUESTION, "candidates": candidates})


@pytest.mark.parametrize(
    ("given", "instruction"),
    [
        (QUESTION, None),
        ([HumanMessage(QUESTION)], None),
        (HumanMessage(QUESTION), None),
        (StringPromptValue(text=QUESTION), None),
        (ChatPromptTemplate.from_messages([("human", "{q}")]).invoke({"q": QUESTION}), None),
        ({"context": "x", "question": QUESTION}, None),
        ({"messages": [("user", QUESTION)], "other": 1}, None),
        ({"anything": QUESTION}, None),
        ({"question": "no", "task": [{"role": "user", "content": QUESTION}]}, "task"),
        ({"parts": QUESTION.split(), "question": "no"}, lambda given: " ".join(given["parts"])),
    ],
)
def test_what_the_scorer_reads_as_the_instruction(default, given, instruction):
    result = CappySelector.from_runnables(
        [always(RIGHT)], scorer=default, instruction=instruction, include_scores=True
    ).invoke(given)
    assert result["score"] == default.score(QUESTION, [RIGHT])[0]


@pytest.mark.parametrize(
    ("given", "instruction", "why"),
    [
        ({"a": "1", "b": "2"}, None, "can be told from a dict with the keys a, b"),
        ({}, None, "a dict with the keys"),
        ({"question": 7}, None, "the input's 'question' is int 7"),
        (7, None, "the input is int 7"),
        ([], None, "the input is list"),
        ([7], None, "a list that can't be read as messages"),
        ({"question": "q"}, "task", "must have the key 'task'"),
        ("q", "task", "must have the key 'task'"),
        ("q", lambda given: given["x"], "failed: TypeError"),
        ("q", lambda given: None, "returned NoneType"),
    ],
)
def test_an_input_without_an_instruction_is_one_error_before_any_call(default, given, instruction, why):
    called = []
    selector = CappySelector.from_runnables([called.append], scorer=default, instruction=instruction)
    with pytest.raises(InputError, match=why):
        selector.invoke(given)
    with pytest.raises(InputError, match=why):
        asyncio.run(selector.ainvoke(given))
    assert called == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("q", "got str 'q'"),
        ({"instruction": "q"}, "got a dict with the keys instruction"),
        ({"instruction": "q", "candidates": RIGHT}, "'candidates' must be a list"),
        ({"instruction": "q", "candidates": ["a"] * 1001}, "1001 candidates are too many"),
        ({"candidates": ["a"]}, "no instruction for the scorer can be told"),
    ],
)
def test_what_is_no_candidates_from_upstream_is_one_error(default, given, why):
    with pytest.raises(InputError, match=why):
        CappySelector(scorer=default).invoke(given)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sample": 2}, "no argument 'sample': did you mean 'samples'"),
        ({"samples": 0}, "samples: .*got 0"),
        ({"samples": 2}, "samples=2 is for runnables"),
        ({"scorer": 5}, "a scorer is a Scorer, a folder"),
        ({"strategy": Vote}, "a strategy is an object"),
        ({"gates": [3]}, "a gate is an object"),
        ({"stop_when": float("nan")}, "stop_when: Input should be a finite number"),
        ({"deadline_s": 0}, "deadline_s: .*got 0"),
        ({"instruction": 3}, "instruction must be a key or a function"),
        ({"instruction": asyncio.sleep}, "sleep is async"),
        ({"runnables": {"a": "b"}}, "runnables.a: .*Runnable"),
    ],
)
def test_options_that_cannot_be_are_said_at_construction(default, options, why):
    with pytest.raises(InputError, match=why):
        CappySelector(**{"scorer": default} | options)


@pytest.mark.parametrize("runnables", [[], {}, RIGHT, always(RIGHT), [7], {"a": 7}])
def test_what_is_no_runnable_is_one_error(runnables):
    with pytest.raises(InputError, match="runnable"):
        CappySelector.from_runnables(runnables)
