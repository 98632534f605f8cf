"""The answer behind a model's thinking."""

from __future__ import annotations

import subprocess
import sys

import pytest
from loopback import Reply

from cappy_select import Candidate, NoCandidates, Request, Selector, Vote
from cappy_select.ask.complete import Complete
from cappy_select.ask.recorded import Recorded
from cappy_select.text.messages import message_text, response_text
from cappy_select.text.thinking import behind_thinking


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>Peru, so ...</think>The Ucayali.", "The Ucayali."),
        ("\n<thinking>\nPeru\n</thinking>\n\nThe Ucayali.\n", "The Ucayali.\n"),
        ("<THINK>a</Think> b", "b"),
        ("Peru, so it must be ...\n</think>\n\nThe Ucayali.", "The Ucayali."),  # the template opened it
        ("<think>a</think><think>b</think>c", "c"),
        ("<think>is it <think> twice?</think> still</think>c", "c"),
        ("Wait.\n<think>a</think>\nThe Ucayali.", "Wait.\n\nThe Ucayali."),
        ("<think>a</think>", ""),
        ("<think>a</think> \u200b", "\u200b"),
        ("<think>it goes on and on", ""),
        ("<think>a</think>\n<think>it goes on", ""),
        ("Write `<think>` before and `</think>` behind it.", "Write `<think>` before and `</think>` behind it."),
        ("The tag <think> opens a block.", "The tag <think> opens a block."),
        ("I think, therefore I am.", "I think, therefore I am."),
        ("  plain ", "  plain "),
        ("", ""),
    ],
)
def test_the_answer_is_what_stands_behind_the_thinking(text, answer):
    assert behind_thinking(text) == answer
    assert Recorded(model="m", response=text).said == answer
    message = {"role": "assistant", "content": text}
    assert response_text(message) == answer
    assert message_text(message) == text


@pytest.mark.parametrize("text", ["<think>a</think>", "<think>a", "a</think>\n\u200b", "<think>a</think>\ufe0f"])
def test_an_answer_of_nothing_but_thinking_is_empty(text):
    candidate = Candidate(model="m", message={"role": "assistant", "content": text}, finish_reason="stop")
    assert Complete().reason(candidate, Request(messages=({"role": "user", "content": "q"},))) == "empty answer"


def test_a_call_behind_the_thinking_is_an_answer():
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    message = {"role": "assistant", "content": "<think>a</think>", "tool_calls": [call]}
    assert response_text(message) == "find({})"


def test_score_and_votes_go_by_the_answer_and_the_caller_gets_all_of_it(loopback, direct, default):
    said = "The Ucayali flows through Peru."
    loopback.replies["plain"] = [Reply(text=said)]
    loopback.replies["thinker"] = [Reply(text=f"<think>Lorem ipsum? No, that is no river at all.</think>\n{said}")]
    loopback.replies["lost"] = [Reply(text="<think>Lorem ipsum")]
    models = [direct(name) for name in ("plain", "thinker", "lost")]
    chosen = Selector(models, samples=1, scorer=default, strategy=Vote("text")).select("Name a river in Peru.")
    scores = {candidate.model: candidate.score for candidate in chosen.candidates}
    assert scores["plain"] == pytest.approx(scores["thinker"], abs=1e-6)
    assert chosen.candidates[1].text.startswith("<think>Lorem")
    assert chosen.candidates[2].rejected == "empty answer"


def test_json_must_be_json_for_who_parses_it(loopback, direct, default):
    asked = {"response_format": {"type": "json_object"}}
    loopback.replies["m"] = [Reply(text='<think>a</think>{"river": "Ucayali"}')]
    with pytest.raises(NoCandidates) as caught:
        Selector([direct("m")], samples=1, scorer=default).select("Name a river as JSON.", **asked)
    assert "is not JSON" in str(caught.value)


def test_time_grows_with_the_number_of_blocks_not_with_its_square():
    code = (
        "from cappy_select.text.thinking import behind_thinking\n"
        "assert behind_thinking('<think>a</think>b' * 1_000_000) == 'b' * 1_000_000"
    )
    subprocess.run([sys.executable, "-c", code], timeout=100, check=True)  # the square would be an hour
