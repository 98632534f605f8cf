from __future__ import annotations

import gzip
import json

import pytest

from cappy_select import InputError, ProviderError, ReplayProvider, Request, Selector
from cappy_select.ask.recorded import read_recorded

ROW = {
    "id": "1",
    "instruction": "Name a river.",
    "references": ["Ucayali"],
    "candidates": [
        {"model": "a", "response": "The Ucayali.", "correct": True},
        {"model": "b", "response": "Lima.", "correct": False, "finish_reason": "stop"},
        {"model": "a", "response": "The Marañón.", "correct": True},
    ],
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "recorded.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def ask(text="Name a river.", **options):
    return Request(messages=({"role": "user", "content": text},), **options)


async def test_sample_k_is_the_kth_recorded_answer(file):
    provider = ReplayProvider(file, "a")
    assert [(await provider.complete(ask(sample=k)))[0].text for k in (0, 1)] == ["The Ucayali.", "The Marañón."]
    with pytest.raises(ProviderError, match="no recorded answer 2") as caught:
        await provider.complete(ask(sample=2))
    assert caught.value.kind == "bad_request"


async def test_all_models_of_a_file_in_recorded_order(file):
    candidates = await ReplayProvider(file).complete(ask(n=3))
    assert [candidate.model for candidate in candidates] == ["a", "b", "a"]


async def test_an_unknown_prompt_is_a_failure(file):
    with pytest.raises(ProviderError, match="no recorded answer"):
        await ReplayProvider(file).complete(ask("Name a mountain."))


def test_a_selector_replays_a_file_by_name(file):
    selection = Selector([f"replay:{file}"], samples=3).select("Name a river.")
    assert {candidate.text for candidate in selection.candidates} == {"The Ucayali.", "Lima.", "The Marañón."}
    assert selection.failures == ()
    assert Selector([f"replay:{file}#b"], samples=1).select("Name a river.").text == "Lima."


def test_gzip_is_read_whatever_the_name(file, tmp_path):
    packed = tmp_path / "packed.jsonl"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert list(read_recorded(packed)) == list(read_recorded(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", ":1 is not JSON"),
        (b"[" * 200_000, ":1 is not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", ":1 is not JSON"),
        (b'{"id": "1"}', ":1: instruction: Field required"),
        (json.dumps(ROW).encode() + b'\n{"id": 3}', ":2: "),
        (b"\xff\xfe", "is not JSON"),
        (b"\x1f\x8bnot gzip", "can't be read"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-10], "can't be read"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path, content, message):
    (tmp_path / "broken.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_recorded(tmp_path / "broken.jsonl"))


def test_no_file_and_no_such_model(file):
    with pytest.raises(InputError, match="no such file"):
        ReplayProvider("nowhere.jsonl")
    with pytest.raises(InputError, match="it has those of a, b"):
        ReplayProvider(file, "c")
