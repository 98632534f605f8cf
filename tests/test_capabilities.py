"""What a provider can do beside its one call."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cappy_select import LiteLLMProvider, OpenAIProvider, ReplayProvider, TransformersProvider
from cappy_select.ask import Capabilities


class Bare:
    model = "bare"

    async def complete(self, request):
        raise NotImplementedError


class Able(Bare):
    max_concurrency = 3

    def unsupported(self, params):
        return {"top_k"} & params.keys()


def test_a_provider_without_more_can_do_nothing_more():
    assert Capabilities.of(Bare()) == Capabilities()
    assert not Capabilities.of(Bare()).cannot("top_k", 5)


def test_what_it_has_is_found_by_its_name():
    able = Capabilities.of(Able())
    assert (able.max_concurrency, able.price, able.stream) == (3, None, None)
    assert able.cannot("top_k", 5)
    assert not able.cannot("temperature", 1)


@pytest.mark.parametrize(
    ("provider", "lacks"),
    [
        (LiteLLMProvider, {"max_concurrency"}),
        (OpenAIProvider, {"max_concurrency", "acted_upon"}),
        (
            ReplayProvider,
            {"acted_upon", "stream", "max_concurrency", "count_tokens", "max_prompt_tokens", "highest_price"},
        ),
        (TransformersProvider, {"acted_upon", "stream", "highest_price"}),
    ],
)
def test_ours_can_do_what_they_could(provider, lacks):
    able = Capabilities.of(provider)
    assert {field.name for field in fields(able) if getattr(able, field.name) is None} == lacks
