"""Scorers that are not ours: a function of pairs, or an object with `score_pairs`."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from langchain_cappy import CappySelector, ChatCappy
from loopback import Reply

from cappy_select import InputError, NoCandidates, Scorer, Selector
from cappy_select.scorer import OtherScorer, PairScorer, as_scorer


def length(pairs):
    """Likes long responses."""
    return [len(response) for _, response in pairs]


class Judge:
    """Likes one word."""

    name, version = "judge", "7"

    def __init__(self, liked="b"):
        self.liked, self.seen = liked, []

    def score_pairs(self, pairs):
        self.seen += pairs
        return np.array([float(response == self.liked) for _, response in pairs])


class Awaited(Judge):
    """The same, awaited."""

    async def ascore_pairs(self, pairs):
        await asyncio.sleep(0)
        self.loop = asyncio.get_running_loop()
        return self.score_pairs(pairs)


@pytest.fixture
def three(loopback, direct):
    loopback.replies["m"] = [Reply(text=text) for text in ("a", "b", "ccc")]
    return [direct("m")]


@pytest.mark.parametrize(
    ("scorer", "best", "name"),
    [
        (length, "ccc", "length"),
        (Judge(), "b", "judge 7"),
        (Awaited(), "b", "judge 7"),
        (as_scorer(length), "ccc", "length"),
    ],
)
def test_a_scorer_of_ones_own_chooses(three, scorer, best, name):
    selection = Selector(three, samples=3, scorer=scorer).select("Which?")
    assert (selection.text, selection.scorer) == (best, name)
    assert selection.best.score is not None
    assert selection.instruction.tokens_cut == 0


async def test_it_reads_the_instruction_and_is_awaited_where_it_can_be(three):
    scorer = Awaited()
    await Selector(three, samples=3, scorer=scorer).aselect([{"role": "user", "content": "Which?"}])
    assert sorted(scorer.seen) == [("Which?", text) for text in ("a", "b", "ccc")]
    assert scorer.loop is asyncio.get_running_loop()


async def test_one_that_blocks_does_not_hold_up_the_event_loop(three):
    beats = []

    async def beat():
        while True:
            beats.append(time.perf_counter())
            await asyncio.sleep(0.02)

    def slow(pairs):
        time.sleep(0.4)
        return length(pairs)

    beating = asyncio.create_task(beat())
    selection = await Selector(three, samples=3, scorer=slow).aselect("Which?")
    beating.cancel()
    assert selection.text == "ccc"
    assert max(b - a for a, b in pairwise(beats)) < 0.3


def fails(pairs):
    raise ConnectionError("the reward model went away")


@pytest.mark.parametrize(
    ("scorer", "why"),
    [
        (fails, "the scorer fails failed: ConnectionError: the reward model went away"),
        (lambda pairs: [1.0], "must give 3 numbers, one for each pair, got (1,)"),
        (lambda pairs: ["good"] * 3, "gave no numbers"),
        (lambda pairs: None, "must give 3 numbers"),
        (lambda pairs: [math.nan] * 3, "the score is nan"),
    ],
)
def test_one_that_fails_loses_no_bill(three, scorer, why):
    with pytest.raises(NoCandidates) as caught:
        Selector(three, samples=3, scorer=scorer).select("Which?")
    assert {why in str(error) for error in caught.value.exceptions} == {True}
    assert caught.value.usage.completion_tokens > 0


def test_one_that_never_ends_ends_with_the_deadline(three):
    freed = threading.Event()
    began = time.perf_counter()
    with pytest.raises(NoCandidates, match="0 usable") as caught:
        Selector(three, samples=3, scorer=lambda pairs: freed.wait(60), deadline_s=1).select("Which?")
    freed.set()
    assert "had not ended after" in str(caught.value.exceptions[0])
    assert time.perf_counter() - began < 30


def test_it_can_end_the_waiting(three):
    assert Selector(three, samples=3, scorer=Judge(), stop_when=1.0).select("Which?").ended in ("stop_when", "complete")


@pytest.mark.parametrize("given", [5, object(), Judge, ["hf://a/b"]])
def test_what_is_no_scorer_is_said_to_be_none(given):
    with pytest.raises(InputError, match="a scorer is a Scorer, a folder"):
        as_scorer(given)


def test_ours_is_one_too(default):
    assert isinstance(default, PairScorer)
    assert as_scorer(default) is default
    assert isinstance(as_scorer(None), Scorer)
    other = as_scorer(Judge())
    assert isinstance(other, OtherScorer)
    assert other.score_pairs([("q", "b"), ("q", "c")]).tolist() == [1.0, 0.0]


def test_langchains_faces_take_it(three):
    chat = ChatCappy(models=three, samples=3, scorer=Judge())
    answer = chat.invoke("Which?")
    assert answer.content == "b"
    assert chat._identifying_params["scorer"] == "judge 7"
    assert CappySelector(scorer=length).invoke({"instruction": "Which?", "candidates": ["a", "bbb", "cc"]}) == "bbb"
