"""`close`, `aclose` and `with`: what a Selector or a provider opened is closed."""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakSet

import pytest

from cappy_select import ReplayProvider, Request, Selector
from cappy_select.ask.providers import litellm


@pytest.fixture(autouse=True)
def no_others(monkeypatch):
    """LiteLLM's connections are closed with the last provider: those of other tests may still be about."""
    monkeypatch.setattr(litellm, "_open", WeakSet())


ASK = Request(messages=({"role": "user", "content": "hi"},), n=1, sample=0, timeout_s=5.0)


def by_name(loopback, **options):
    return Selector(["openai:m", "openai/n"], samples=2, api_base=loopback.base, api_key="k", **options)


def test_with_closes_the_connections_of_synchronous_calls(loopback, tiny):
    with by_name(loopback, scorer=tiny) as selector:
        assert len(selector.select("hi").candidates) == 4
        assert loopback.connections >= 2
    assert loopback.closed_within(5)


async def test_async_with_closes_those_of_this_loop_and_of_synchronous_calls(loopback, tiny):
    async with by_name(loopback, scorer=tiny) as selector:
        await asyncio.to_thread(selector.select, "hi")
        before = loopback.connections
        await selector.aselect("hi")
        assert loopback.connections > before >= 2
    assert loopback.closed_within(5)


def test_those_of_a_loop_in_another_thread_are_closed_too(loopback, tiny):
    selector = by_name(loopback, scorer=tiny)
    asked, done = threading.Event(), threading.Event()

    async def ask() -> None:
        await selector.aselect("hi")
        asked.set()
        while not done.is_set():
            await asyncio.sleep(0.01)

    other = threading.Thread(target=asyncio.run, args=(ask(),))
    other.start()
    assert asked.wait(10)
    assert loopback.connections
    selector.close()
    closed = loopback.closed_within(5)
    done.set()
    other.join()
    assert closed


def test_what_is_closed_says_so_and_closing_again_does_nothing(loopback, tiny):
    selector = by_name(loopback, scorer=tiny)
    selector.close()
    selector.close()
    with pytest.raises(RuntimeError, match="closed"):
        selector.select("hi")
    assert loopback.requests == []


def test_providers_that_were_given_stay_open(loopback, direct, tiny):
    given = direct("m")
    with Selector([given], samples=1, scorer=tiny) as selector:
        selector.select("hi")
    assert loopback.connections == 1
    given.close()
    assert loopback.closed_within(5)


@pytest.mark.parametrize("make", ["direct", "provider"])
async def test_a_provider_that_was_closed_opens_new_connections_when_it_is_asked(make, loopback, request):
    provider = request.getfixturevalue(make)("m")
    async with provider:
        await provider.complete(ASK)
        assert loopback.connections == 1
    assert loopback.closed_within(5)
    assert (await provider.complete(ASK))[0].text == "ok"
    await provider.aclose()


async def test_litellms_connections_are_shared_and_closed_with_the_last_provider(loopback, provider):
    first, second = provider("a"), provider("b")
    await first.complete(ASK)
    await second.complete(ASK)
    await first.aclose()
    assert loopback.connections
    await second.aclose()
    assert loopback.closed_within(5)


def test_a_provider_without_connections_has_close_too(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "1", "instruction": "hi", "candidates": [{"model": "m", "response": "ho"}]}\n')
    with ReplayProvider(file) as provider:
        assert provider.model == "replay:answers.jsonl"
