from __future__ import annotations

import json

import pytest

from cappy_select import Example, InContext, InputError

POOL = tuple(
    Example(input=asked, output=told)
    for asked, told in [
        ("Which river flows through Peru?", "The Ucayali."),
        ("Which river flows through Egypt?", "The Nile."),
        ("What is 17 + 25?", "42"),
        ("Who wrote Faust?", "Goethe."),
        ("What colour is the sky?", "Blue."),
    ]
)
ASK = ({"role": "user", "content": "Which river flows through Vienna?"},)


def count(messages):
    return sum(len(message["content"].split()) for message in messages)


def test_examples_become_turns_before_the_question_the_most_useful_next_to_it():
    messages, shown = InContext(pool=POOL, k=2, choose="bm25", definition="Answer.").apply(ASK)
    assert shown == 2
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[0]["content"] == "Answer."
    assert {messages[1]["content"], messages[3]["content"]} == {POOL[0].input, POOL[1].input}
    assert messages[-1] == ASK[0]


def test_earlier_turns_stay_before_and_what_follows_stays_behind():
    chat = ({"role": "system", "content": "Be brief."}, *ASK, {"role": "assistant", "content": "Hm:"})
    messages, _ = InContext(pool=POOL, k=1).apply(chat)
    assert messages[0] == chat[0]
    assert messages[-2:] == chat[1:]
    defined, _ = InContext(pool=POOL, k=1, definition="Answer.").apply(chat)
    assert [m["role"] for m in defined].count("system") == 1  # some models take only one
    assert defined[0]["content"] == "Answer.\n\nBe brief."


def test_bm25_prefers_the_alike_random_is_the_same_by_seed_and_diverse_is_not_alike():
    bm25 = InContext(pool=POOL, k=3, choose="bm25").chosen(ASK[0]["content"])
    assert {example.output for example in bm25[:2]} == {"The Ucayali.", "The Nile."}
    picks = [tuple(e.output for e in InContext(pool=POOL, k=3, seed=seed).chosen("q")) for seed in range(6)]
    assert len(set(picks)) > 1
    assert picks[0] == tuple(e.output for e in InContext(pool=POOL, k=3, seed=0).chosen("another"))
    diverse = InContext(pool=POOL, k=4, choose="diverse", seed=1).chosen("q")
    assert len(set(diverse)) == 4
    assert {"The Ucayali.", "The Nile."} - {example.output for example in diverse}


def test_the_prompt_itself_is_never_an_example():
    for choose in ("random", "bm25", "diverse"):
        chosen = InContext(pool=POOL, k=9, choose=choose).chosen(POOL[2].input)
        assert len(chosen) == 4
        assert POOL[2] not in chosen
    assert InContext(pool=POOL[:1]).chosen(POOL[0].input) == []


def test_a_pool_without_words_is_no_hindrance():
    icl = InContext(pool=(Example(input="?", output="!"), Example(input="...", output="!")), k=1, choose="bm25")
    assert [example.input for example in icl.chosen("a question")] == ["?"]


def test_examples_are_left_out_until_the_prompt_fits():
    icl = InContext(pool=POOL, k=4, choose="bm25")
    whole = count(icl.apply(ASK)[0])
    fitted, shown = icl.apply(ASK, count_tokens=count, room=whole - 1)
    assert (len(fitted), shown) == (7, 3)
    assert (fitted, shown) == InContext(pool=POOL, k=3, choose="bm25").apply(ASK)
    assert icl.apply(ASK, count_tokens=count, room=1) == (ASK, 0)
    assert icl.apply(ASK, count_tokens=count, room=whole)[1] == 4
    assert InContext(pool=POOL, k=4, max_tokens=1).apply(ASK, count_tokens=count, room=10**6) == (ASK, 0)
    with pytest.raises(InputError, match="does not count tokens"):
        InContext(pool=POOL, max_tokens=5).apply(ASK)


def test_natural_instructions_has_definition_examples_and_the_input(tmp_path):
    file = tmp_path / "task.json"
    positive = [{"input": "1+1", "output": "2", "explanation": "One and one."}, {"input": "2+2", "output": "4"}]
    negative = [{"input": "3+3", "output": "7"}]
    task = {"Definition": ["Add."], "Positive Examples": positive, "Negative Examples": negative}
    file.write_text(json.dumps(task))
    (message,), _ = InContext.load(file, k=2).apply([{"role": "user", "content": "5+5"}])
    text = message["content"]
    assert text.startswith("Definition: Add.\n\nPositive Example 1 -\nInput: ")
    assert "Input: 1+1\nOutput: 2\nExplanation: One and one." in text
    assert "7" not in text
    assert text.endswith("Now complete the following example -\nInput: 5+5\nOutput:")


def test_text_puts_all_into_one_message(tmp_path):
    file = tmp_path / "pool.jsonl"
    file.write_text("".join(example.model_dump_json() + "\n" for example in POOL))
    icl = InContext.load(file, k=1, render="text", definition="Answer.")
    (message,), _ = icl.apply(ASK)
    example = icl.chosen("q")[0]
    assert message["content"] == f"Answer.\n\n{example.input}\n{example.output}\n\n{ASK[0]['content']}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: InContext.load(p / "none"), "can't be read"),
        (lambda p: _load(p, "{}"), "input"),
        (lambda p: _load(p, "x"), "neither JSONL"),
        (lambda p: _load(p, '{"input": "a", "output": "b"}', k=0), "k"),
        (lambda p: _load(p, '{"input": "a", "output": "b"}', render="natural_instructions"), "definition"),
        (lambda p: InContext(pool=POOL).apply([{"role": "system", "content": "x"}]), "user message"),
        (
            lambda p: InContext(pool=POOL, render="text").apply(
                [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]
            ),
            "text alone",
        ),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path)


def _load(folder, content, **options):
    (folder / "pool.jsonl").write_text(content)
    return InContext.load(folder / "pool.jsonl", **options)
