from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cappy_select import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.readers import sniff
from cappy_select.data.readers.chats import read_chats


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def write(folder, *rows, name="support.jsonl"):
    file = folder / name
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def read(source, problems=None, **options):
    return [one for _, one in read_chats(source, problems or Problems(strict=True), **options)]


def test_a_single_question_is_the_instruction_itself(tmp_path):
    (only,) = read(write(tmp_path, {"messages": [user("Name a river."), assistant("The Ucayali.")]}))
    assert only.instruction == "Name a river."
    assert (only.id, only.task) == ("support|support|#1", "support")
    assert (only.references, only.negatives, only.choices) == (("The Ucayali.",), (), None)


def test_of_a_chat_the_last_answer_is_the_reference(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    chat = [system, user("Hi."), assistant("Hello."), user("A river?"), assistant("The Ucayali."), user("Thanks.")]
    file = write(tmp_path, {"messages": chat})
    (only,) = read(file)
    assert only.instruction == "Be brief.\n\nUser: Hi.\nAssistant: Hello.\n\nA river?"
    assert only.references == ("The Ucayali.",)
    assert read(file, policy="last_user")[0].instruction == "A river?"
    assert read(file, budget=10)[0].instruction == "Be brief.\n\nAssistant: Hello.\n\nA river?"
    chat[4]["weight"] = 0
    assert read(write(tmp_path, {"messages": chat}))[0].references == ("Hello.",)


def test_a_tool_call_is_an_answer(tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "rivers"}'}}
    (only,) = read(write(tmp_path, {"messages": [user("Look."), assistant(None, tool_calls=[call])]}))
    assert only.references == ('search({"q": "rivers"})',)


def test_preferences_are_a_reference_and_a_negative(tmp_path):
    row = {
        "input": {"messages": [user("Name a river.")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant("The Ucayali.")],
        "non_preferred_output": [assistant("Lima.")],
    }
    file = write(tmp_path, row)
    (only,) = read(file)
    assert only.instruction == "Name a river."
    assert (only.references, only.negatives) == (("The Ucayali.",), ("Lima.",))
    assert sniff(file) == "chats"


def test_parquet_fills_messages_with_nothing_which_is_no_content(tmp_path):
    rows = [{"id": "x", "messages": [{**user("Q"), "name": None}, {**assistant("A"), "name": "bot"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chats.parquet")
    (only,) = read(tmp_path / "chats.parquet", task="help")
    assert (only.id, only.task, only.references) == ("x", "help", ("A",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ({"prompt": "x"}, "expected 'messages'"),
        ({"messages": []}, "must be a list of messages"),
        ({"messages": None}, "expected 'messages'"),
        ({"messages": ["x"]}, "messages with a 'role'"),
        ({"messages": [{"content": "x"}]}, "messages with a 'role'"),
        ({"messages": [user("x")]}, "no message of the assistant"),
        ({"messages": [assistant("x")]}, "prompt"),
        ({"messages": [user("x"), assistant("")]}, "is empty"),
        ({"messages": [user(""), assistant("x")]}, "instruction"),
        ({"messages": [user(3), assistant("x")]}, "content"),
        ({"input": {"messages": [user("x")]}, "preferred_output": [assistant("a")]}, "non_preferred_output"),
        (
            {
                "input": {"messages": [user("x")]},
                "preferred_output": [assistant("")],
                "non_preferred_output": [assistant("b")],
            },
            "'preferred_output' is empty",
        ),
    ],
)
def test_what_is_no_chat_is_reported_by_line(tmp_path, row, message):
    file = write(tmp_path, {"messages": [user("Q"), assistant("A")]}, row)
    problems = Problems()
    assert len(read(file, problems)) == 1
    ((where, said),) = problems.listed
    assert where == f"{file}:2"
    assert message in said
    with pytest.raises(InputError, match=r"support.jsonl:2"):
        read(file, Problems(strict=True))


def test_an_empty_file_is_a_problem(tmp_path):
    problems = Problems()
    assert read(write(tmp_path), problems) == []
    assert "holds no row" in problems.listed[0][1]
