"""JSON of models, clients and files: what can't be read is one clear error."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cappy_select import Candidate, InputError, Selector
from cappy_select.core.json_text import is_too_deep, loads, strict_loads

DEEP = "[" * 100_000 + "]" * 100_000


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text", [DEEP, DEEP[:50_000], '{"a":' * 5000, json.dumps(nested(201)), "9" * 5000, "nope", "\x00"]
)
def test_what_can_not_be_read_is_a_value_error(text):
    for given in (text, text.encode()):
        with pytest.raises(ValueError):  # noqa: PT011
            loads(given)


def test_what_is_nested_as_people_nest_is_read():
    assert loads(json.dumps(nested(200))) == nested(200)
    assert loads(json.dumps([[number] for number in range(1000)])) == [[number] for number in range(1000)]
    assert loads(b'\xef\xbb\xbf{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_lists_that_hold_each_other_many_times_are_looked_at_once():
    twice = []
    for _ in range(150):
        twice = [twice, twice]
    assert not is_too_deep(twice)
    circle = []
    circle += [circle, circle]
    assert is_too_deep(circle)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1e400", "1e400 is too large"),
        ("-1e999999", "too large"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("[NaN]", "NaN is no JSON number"),
        (DEEP, "nested too deeply"),
    ],
)
def test_a_number_beyond_all_numbers_is_no_answer(text, why):
    with pytest.raises(ValueError, match=why):
        strict_loads(text)


COMMANDS = {
    "rows.jsonl": ["score", "--pairs", "{file}"],
    "recorded.jsonl": ["eval", "selection", "{file}"],
    "schema.json": ["select", "q", "--model", "replay:x", "--json-schema", "{file}"],
    "plan.json": ["select", "q", "--model", "replay:x", "--plan", "{file}"],
    "weights.json": ["build", "{folder}/none.db", "--out", "{folder}/out", "--mixture", "{file}"],
    "config.json": ["export", "{folder}", "{folder}/out"],
    "card.json": ["export", "{folder}", "{folder}/out", "--card", "{file}"],
    "prompt": ["select", "[" * 100_000, "--messages", "--model", "replay:{folder}/answers.jsonl"],
    "tasks.jsonl": ["data", "read", "{file}", "--out", "{folder}/out.jsonl"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_nested_without_end_is_one_line_to_the_user(tmp_path, name):
    (tmp_path / name).write_text(DEEP)
    answers = {"id": "1", "task": "t", "instruction": "q", "candidates": [{"model": "m", "response": "a"}]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answers))
    command = [part.format(file=tmp_path / name, folder=tmp_path) for part in COMMANDS[name]]
    done = subprocess.run(
        [sys.executable, "-m", "cappy_select", *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode not in (0, 1), done.stderr
    assert "nested too deeply" in done.stderr
    assert "Traceback" not in done.stderr


class Once:
    model = "once"

    async def complete(self, request):
        return [Candidate(model="once", message={"role": "assistant", "content": "yes"}, finish_reason="stop")]


def test_a_request_nested_without_end_is_refused_before_it_is_sent(tiny):
    selector = Selector([Once()], samples=1, scorer=tiny)
    schema = {"type": "object", "properties": {"a": nested(5000)}}
    with pytest.raises(InputError, match="tools: nested more than 200 deep"):
        selector.select("q", tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
    with pytest.raises(InputError, match="message 0 is nested more than 200 deep"):
        selector.select([{"role": "user", "content": "q", "more": nested(5000)}])
    assert selector.select("q").text == "yes"
