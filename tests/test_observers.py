"""Observers are told of every finished selection, and can neither slow it nor break it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from loopback import Reply

from cappy_select import InputError, NoCandidates, NoGoodAnswer, Selector
from cappy_select.select import Finished
from cappy_select.select.observers import MAX_WAITING, Told


def watched(models, scorer, *, told=None, **options):
    """A Selector and the list of what its observer was told."""
    seen: list[Finished] = []
    return Selector(models, samples=1, scorer=scorer, observers=[told or seen.append], **options), seen


def test_each_selection_is_told_with_what_was_asked(direct, tiny):
    selector, seen = watched([direct("m")], tiny)
    with selector:
        selection = selector.select("hi", temperature=0.5)
        several = selector.batch(["a", "b"])
        streamed = list(selector.stream("c"))[-1]
    assert [finished.selection for finished in seen[:1]] == [selection]
    assert (seen[0].prompt, seen[0].params, seen[0].error) == ("hi", {"temperature": 0.5}, None)
    assert seen[0].latency_s >= selection.latency_s
    told = {finished.prompt: finished.selection for finished in seen[1:]}
    assert told == {"a": several[0], "b": several[1], "c": streamed}


def test_a_failure_is_told_with_its_error(direct, loopback, tiny):
    loopback.replies["m"] = [Reply(status=400)]
    selector, seen = watched([direct("m")], tiny)
    with selector, pytest.raises(NoCandidates) as caught:
        selector.select("hi")
    assert [(finished.selection, finished.error) for finished in seen] == [(None, caught.value)]


def test_an_answer_that_is_not_good_enough_is_told_with_its_selection(direct, tiny):
    selector, seen = watched([direct("m")], tiny, abstain_below=1e9)
    with selector, pytest.raises(NoGoodAnswer) as caught:
        selector.select("hi")
    assert (seen[0].selection, seen[0].error) == (caught.value.selection, caught.value)


async def test_a_cancelled_selection_is_told(direct, loopback, tiny):
    loopback.replies["m"] = [Reply(delay_s=5)]
    selector, seen = watched([direct("m")], tiny)
    async with selector:
        task = asyncio.create_task(selector.aselect("hi"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert isinstance(seen[0].error, asyncio.CancelledError)


def test_one_that_fails_or_exits_breaks_nothing_and_is_logged_without_texts(direct, tiny, caplog):
    def fails(finished: Finished) -> None:
        raise ValueError(f"can't write {finished.prompt}")

    def leaves(finished: Finished) -> None:
        sys.exit(3)

    seen: list[Finished] = []
    caplog.set_level(logging.WARNING, "cappy_select")
    with Selector([direct("m")], samples=1, scorer=tiny, observers=[fails, leaves, seen.append]) as selector:
        assert selector.select("a secret prompt").text == "ok"
        assert selector.select("a secret prompt").text == "ok"
    assert len(seen) == 2
    assert "ValueError" in caplog.text
    assert "SystemExit" in caplog.text
    assert "secret" not in caplog.text


def test_one_that_hangs_slows_nothing_and_the_others_are_told(direct, tiny):
    release, told = threading.Event(), threading.Event()
    observers = [lambda _: release.wait(), lambda _: told.set()]
    selector = Selector([direct("m")], samples=1, scorer=tiny, observers=observers)
    started = time.monotonic()
    for _ in range(3):
        selector.select("hi")
    assert time.monotonic() - started < 5
    assert told.wait(5)
    release.set()
    selector.close()


def test_of_too_many_that_wait_the_oldest_are_dropped_and_that_is_logged(caplog):
    release, seen = threading.Event(), []

    def slow(finished: Finished) -> None:
        release.wait()
        seen.append(finished.prompt)

    told = Told(slow)
    with caplog.at_level(logging.WARNING, "cappy_select"):
        for number in range(MAX_WAITING + 11):
            told.tell(Finished(str(number), {}, 0.0))
            if number == 0:
                while told._waiting:  # the first is in hand before others come
                    time.sleep(0.001)
    release.set()
    assert told.flush(10)
    assert seen == ["0", *(str(number) for number in range(11, MAX_WAITING + 11))]
    assert "10" not in seen
    assert "8 selections dropped" in caplog.text


def test_what_is_finished_is_told_before_the_process_exits(tmp_path):
    file = tmp_path / "told"
    script = """
import sys, time
from cappy_select.select.observers import Finished, Told
def write(finished):
    time.sleep(0.2)
    open(sys.argv[1], "a").write(finished.prompt)
told = Told(write)
for prompt in "abc":
    told.tell(Finished(prompt, {}, 0.0))
"""
    subprocess.run([sys.executable, "-c", script, file], check=True, timeout=60)
    assert file.read_text() == "abc"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tells_what_is_its_own(tmp_path):
    file = tmp_path / "told"
    script = """
import os, sys, threading, time
from cappy_select.select.observers import Finished, Told
release = threading.Event()
def write(finished):
    release.wait()
    open(sys.argv[1], "a").write(f"{finished.prompt}{os.getpid() == int(finished.params['pid'])};")
told = Told(write)
for prompt in "ab":
    told.tell(Finished(prompt, {"pid": os.getpid()}, 0.0))
child = os.fork()
release.set()
if not child:
    told.tell(Finished("c", {"pid": os.getpid()}, 0.0))
assert told.flush(10)
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", script, file], check=True, timeout=60)
    assert sorted(file.read_text().rstrip(";").split(";")) == ["aTrue", "bTrue", "cTrue"]


def test_an_observer_is_a_function(direct, tiny):
    with pytest.raises(InputError, match="observers"):
        Selector([direct("m")], scorer=tiny, observers=["ledger.db"])
