"""What the README shows is run, and what it points to exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import ok
from loopback import Reply

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def block(containing: str) -> str:
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in code]
    return found


def test_the_selector_example_runs(loopback, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_BASE", loopback.base)
    loopback.replies["a"] = [Reply(text="The Ucayali, the Marañón and the Urubamba.")]
    code = re.sub(r"models=\[.*?\]", 'models=["openai/a"]', block("Selector(models"))
    names: dict[str, object] = {}
    exec(code, names)
    assert names["selection"].text == "The Ucayali, the Marañón and the Urubamba."
    assert len(loopback.requests) == 4


def test_the_example_with_everything_runs(loopback, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_BASE", loopback.base)
    loopback.replies["a"] = [Reply(text="The Ucayali."), Reply(text='{"rivers": ["Ucayali"]}')]
    names: dict[str, object] = {}
    exec(re.sub(r"models=\[.*?\]", 'models=["openai/a"]', block("WeightedVote(")), names)
    assert names["selector"].select("Name a river.").text == '{"rivers": ["Ucayali"]}'


def test_the_examples_of_selecting_run(monkeypatch, tmp_path, loopback):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", loopback.base)
    loopback.takes = frozenset({"chat_template_kwargs", "min_p"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples.jsonl").write_text('{"input": "1+1", "output": "2"}\n')
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/selecting.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    assert names["plan"].answers("openai/gpt-5-mini") == 4
    assert names["examples"].k == 4
    assert {request["chat_template_kwargs"]["enable_thinking"] for request in loopback.requests} == {False}
    assert {request["min_p"] for request in loopback.requests} == {0.1}


def test_the_examples_of_langchain_run(loopback, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_BASE", loopback.base)
    loopback.replies["gpt-5-mini"] = [Reply(text="The Ucayali.")]
    page = (ROOT / "docs/langchain.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code.replace(', "anthropic/claude-haiku-4-5"', ""), names)
        if "agent" not in names:
            assert names["chain"].invoke({"country": "Peru"}) == "The Ucayali."
    asked = {"messages": [{"role": "user", "content": "Name a river."}]}
    assert names["agent"].invoke(asked)["messages"][-1].text == "The Ucayali."
    assert names["race"].invoke({"question": "Name a river."}) == "The Ucayali."
    found = names["compressor"].compress_documents(names["documents"], "How high is Lake Titicaca?")
    assert found[0].page_content == "Lake Titicaca lies at 3,812 metres."
    assert not [request for request in loopback.requests if "temperature" in request]


def test_the_scorer_example_runs_and_says_what_it_says():
    names: dict[str, object] = {}
    exec(block("Scorer.load()"), names)
    assert names["scorer"].rank(names["article"], ["Sports", "Business"])[0].response == "Business"
    exec(block("passage ="), names)
    ranked = names["scorer"].rank(names["question"], ["winter", "the school", "the old bridge"])
    assert ranked[0].response == "the old bridge"


def test_the_rank_transcript_is_what_the_command_prints():
    command, *shown = re.search(r"\$ (cappy rank .*\n(?: .*\n)+)```", README).group(1).splitlines()
    printed = ok(*shlex.split(command)[1:]).stdout.splitlines()
    for ours, theirs in zip(shown, printed, strict=True):
        assert ours.split()[1:] == theirs.split()[1:]
        assert float(ours.split()[0]) == pytest.approx(float(theirs.split()[0]), abs=0.02)  # int8 on another CPU


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_examples_of_data_are_true():
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["rouge_l"]("The Nile is a river.", ["The Nile is a long river.", "A river in Africa"]) == 10 / 11
    assert names["rouge_l_batch"](["The Nile", "A lake"], [["The Nile."], ["A river."]]) == [1.0, 0.5]


def test_the_page_on_training_names_every_setting_and_its_example_is_one():
    from cappy_select.train.config import TrainConfig

    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    for name in TrainConfig.model_fields:
        assert f"`{name}`" in page, name
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["config"].patience == 4
