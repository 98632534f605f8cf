"""A limit has one name, one default and one meaning, whichever door it comes in by."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from langchain_cappy import CappySelector, ChatCappy
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from cappy_select import InputError, ReplayProvider, Selector
from cappy_select.cli.select import select as verb
from cappy_select.core.errors import UnknownArgument
from cappy_select.select import Panel, SelectorConfig, limit

FIELDS = SelectorConfig.model_fields
DOCS = Path(__file__).resolve().parent.parent / "docs"
OFFERED = {
    ChatCappy: FIELDS.keys() - {"deadline_s"} | {"timeout"},
    CappySelector: {"deadline_s", "grace_s", "min_usable", "stop_when", "abstain_below"},
    Panel: FIELDS.keys(),
}


def test_the_selector_takes_each_limit_with_its_default():
    taken = inspect.signature(Selector).parameters
    assert {name: taken[name].default for name in FIELDS} == {name: field.default for name, field in FIELDS.items()}


@pytest.mark.parametrize("model", OFFERED)
def test_the_other_doors_have_the_same_limits(model):
    assert (model.model_fields.keys() & {*FIELDS, "timeout"}) == OFFERED[model]
    for name in OFFERED[model]:
        ours, theirs = FIELDS["deadline_s" if name == "timeout" else name], model.model_fields[name]
        assert (theirs.default, theirs.annotation, theirs.metadata) == (ours.default, ours.annotation, ours.metadata)


def test_the_commands_options_are_limits_with_their_defaults_and_descriptions():
    taken = inspect.signature(verb).parameters
    named = [name for name in FIELDS if name in taken]
    assert len(named) >= 9
    assert {name: taken[name].default for name in named} == {name: FIELDS[name].default for name in named}
    for name in named:
        option = inspect.get_annotations(verb, eval_str=True)[name].__metadata__[0]
        assert f"--{name.replace('_', '-')}" in (option.default, *option.param_decls)
        assert FIELDS[name].description.replace("`", "")[1:] in option.help


@pytest.mark.parametrize("page", ["selecting.md"])
def test_each_limit_is_documented_under_its_name(page):
    written = set(re.findall(r"`(\w+)[`=]", (DOCS / page).read_text()))
    assert FIELDS.keys() <= written
    assert "timeout" in (DOCS / "langchain.md").read_text()


def test_a_config_is_frozen_and_takes_no_other_name():
    config = SelectorConfig(deadline_s=3)
    with pytest.raises(ValidationError, match="frozen"):
        config.deadline_s = 4
    with pytest.raises(ValidationError, match="deadline"):
        SelectorConfig(deadline=3)
    with pytest.raises(UnknownArgument, match="deadline_s"):
        Selector(["openai/a"], deadline=3)
    with pytest.raises(KeyError):
        limit("deadline")
    assert limit("deadline_s").default is not PydanticUndefined


@pytest.mark.parametrize("setting", [{"stop_when": float("nan")}, {"abstain_below": float("inf")}, {"grace_s": -1}])
def test_a_limit_that_is_none_is_refused_at_every_door(setting):
    (name,) = setting
    with pytest.raises(InputError, match=name):
        Selector(["openai/a"], **setting)
    for model in (ChatCappy, CappySelector):
        with pytest.raises(ValueError, match=name):
            model(**({"models": ["openai/a"]} if model is ChatCappy else {}), **setting)


def test_a_selector_says_its_limits(tmp_path):
    file = tmp_path / "recorded.jsonl"
    file.write_text('{"id": "1", "instruction": "q", "candidates": [{"model": "m", "response": "a"}]}\n')
    selector = Selector([ReplayProvider(file)], samples=1, deadline_s=5, min_usable=1, stop_when=0.5)
    assert selector.config == SelectorConfig(deadline_s=5, stop_when=0.5)
