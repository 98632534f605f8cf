"""Characters that nobody sees, and halves of characters."""

from __future__ import annotations

import json
import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappy_select import Candidate, Delta, Selection, Usage
from cappy_select.core import Failure, Instruction
from cappy_select.core.characters import Halves, escaped, is_blank, joined, without_halves

HALVES = st.text(alphabet=st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr)))


def test_every_space_control_and_format_character_is_blank():
    unseen = ("Cc", "Cf", "Zs", "Zl", "Zp", "Cs")
    every = map(chr, range(sys.maxunicode + 1))
    assert [hex(ord(c)) for c in every if unicodedata.category(c) in unseen and not is_blank(c)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\u200b\u200d",
        "\u00ad",
        "\ufe0f",
        "\u3164",
        "\uffa0",
        "\u2800\u2800",
        "\U000e0041\U000e007f",
        "\u034f",
    ],
)
def test_a_text_of_unseen_characters_alone_is_blank(text):
    assert is_blank(text)
    assert is_blank(text * 1000)
    assert not is_blank(f"{text}7{text}")


@pytest.mark.parametrize("text", ["0", ".", "中", "é", "🙂", "-", "\u0301a", "ﬁ", "\ufffd"])
def test_what_is_seen_is_not_blank(text):
    assert not is_blank(text)


@given(HALVES)
def test_joining_keeps_every_character_and_leaves_no_pair_apart(text):
    whole = joined(text)
    assert whole.encode("utf-16-le", "surrogatepass") == text.encode("utf-16-le", "surrogatepass")
    assert not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in pairwise(whole))


@given(HALVES, st.lists(st.integers(0, 40)))
def test_pieces_never_end_within_a_character_and_make_the_text(text, cuts):
    units = text.encode("utf-16-le", "surrogatepass")
    marks = sorted({0, *(2 * cut for cut in cuts if 2 * cut < len(units)), len(units)})
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(marks)]
    halves = Halves()
    passed = [halves.pass_on("content", piece) for piece in pieces]
    passed += halves.rest().values()
    assert "".join(passed) == joined(text) == "".join(map(joined, passed))
    assert halves.rest() == {}


@given(st.recursive(HALVES, lambda inner: st.lists(inner) | st.dictionaries(HALVES, inner), max_leaves=6))
def test_any_json_can_be_written_and_comes_back(value):
    text = escaped(json.dumps(value, ensure_ascii=False))
    assert text.encode()
    assert json.dumps(json.loads(text)) == json.dumps(value)
    assert json.dumps(without_halves(value), ensure_ascii=False).encode()


def test_half_a_character_stays_in_json_and_comes_back():
    text = "a \ud83d b"
    candidate = Candidate(model="m", message={"role": "assistant", "content": text}, score=0.5)
    instruction = Instruction(text="Name a river.", policy="paper", cut_side="left")
    selection = Selection(
        candidates=(candidate,),
        failures=(Failure(model="m", kind="server", message=text),),
        instruction=instruction,
        scorer="s",
        strategy="argmax",
        usage=Usage(),
        cost=None,
        latency_s=0.0,
    )
    for indent in (None, 2):
        written = selection.model_dump_json(indent=indent)
        assert json.loads(written)["candidates"][0]["message"]["content"] == text
        assert written.encode()
        assert Selection.model_validate_json(written) == selection
        assert Selection.model_validate_json(written.encode()).text == text
    assert (
        Delta.model_validate_json(Delta(message={"content": "\ude00"}).model_dump_json()).message["content"] == "\ude00"
    )
    small = candidate.model_dump_json(include={"message"})
    assert json.loads(small) == {"message": {"role": "assistant", "content": text}}
