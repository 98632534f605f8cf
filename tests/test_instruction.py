from __future__ import annotations

import pytest

from cappy_select import InputError
from cappy_select.text.instruction import as_messages, build_instruction

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi, how can I help?"},
    {"role": "user", "content": "Name a river."},
]


def words(text: str) -> int:
    return len(text.split())


def build(prompt, policy=None, budget=1000):
    return build_instruction(prompt, policy, count_tokens=words, budget=budget)


def test_a_plain_prompt_is_the_instruction_cut_as_the_manifest_says():
    made = build("Name a river.\n")
    assert (made.text, made.policy, made.cut_side) == ("Name a river.\n", "paper", "right")


def test_a_chat_puts_the_question_last_and_cuts_from_the_left():
    made = build(CHAT)
    assert made.text == "Be brief.\n\nUser: Hello\nAssistant: Hi, how can I help?\n\nName a river."
    assert (made.policy, made.cut_side, made.turns_left_out) == ("chat", "left", 0)


def test_a_chat_longer_than_the_window_keeps_system_question_and_the_newest_turns():
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"turn {i} " + "word " * 20} for i in range(40)]
    made = build([CHAT[0], *turns, CHAT[-1]], budget=100)
    assert made.text.startswith("Be brief.\n\n")
    assert made.text.endswith("\n\nName a river.")
    assert "turn 39" in made.text
    assert "turn 38" in made.text
    assert "turn 0 " not in made.text
    assert words(made.text) <= 100
    assert made.turns_left_out == 40 - made.text.count("turn ")


def test_what_follows_the_question_is_context():
    tool = {"role": "tool", "content": "22 degrees", "tool_call_id": "1"}
    made = build([*CHAT, {"role": "assistant", "content": None, "tool_calls": []}, tool])
    assert made.text.endswith("Tool: 22 degrees\n\nName a river.")


def test_last_user_is_only_the_question():
    made = build(CHAT, "last_user")
    assert (made.text, made.cut_side, made.turns_left_out) == ("Name a river.", "left", 3)


def test_paper_on_a_chat_joins_the_turns():
    made = build(CHAT, "paper")
    assert made.text == "Be brief.\n\nHello\n\nHi, how can I help?\n\nName a river."
    assert made.cut_side == "right"


def test_a_callable_makes_the_text_and_is_recorded_by_name():
    def shout(messages):
        return messages[-1]["content"].upper()

    made = build(CHAT, shout)
    assert made.text == "NAME A RIVER."
    assert made.policy.endswith("shout")


def test_a_callable_that_returns_no_text_is_an_error():
    with pytest.raises(InputError, match="must return a str, got int"):
        build(CHAT, lambda messages: 3)


def test_content_that_is_not_text_is_left_out_and_named():
    parts = [{"type": "text", "text": "What is this? "}, {"type": "image_url", "image_url": {"url": "http://x"}}]
    made = build([{"role": "user", "content": parts}])
    assert made.text == "What is this? "
    assert made.parts_left_out == ("image_url",)


def test_without_a_user_turn_the_last_message_is_the_question():
    assert build([{"role": "system", "content": "Greet."}]).text == "Greet."


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "non-empty list"),
        (None, "non-empty list"),
        ([{"content": "no role"}], "message 0 must be a mapping with a 'role'"),
        ([CHAT[0], "hello"], "message 1 must be a mapping"),
        ([{"role": "user", "content": 3}], "message 0: 'content' must be"),
        ([{"role": "user", "content": [3]}], "message 0: 'content' must be"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_named(prompt, message):
    with pytest.raises(InputError, match=message):
        as_messages(prompt)


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(InputError, match="paper, chat, last_user"):
        build(CHAT, "newest")


def test_the_question_of_a_chat_longer_than_the_window_reaches_the_scorer(tiny):
    chat = [{"role": "user", "content": "the council voted " * 700 + "which answer is good"}]
    made = build_instruction(chat, None, count_tokens=tiny.count_tokens, budget=tiny.window // 2)
    changed = made.text[: -len("good")] + "bad"
    from_left = [tiny.score_detailed([(t, "yes")], instruction_side="left").scores[0] for t in (made.text, changed)]
    from_right = [tiny.score_detailed([(t, "yes")], instruction_side="right").scores[0] for t in (made.text, changed)]
    assert from_left[0] != from_left[1]
    assert from_right[0] == from_right[1]
