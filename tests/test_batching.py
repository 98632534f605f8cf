from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny import awkward_pairs

from cappy_select import Scorer
from cappy_select.core.errors import BundleDamaged
from cappy_select.core.limiter import Limiter
from cappy_select.scorer import batching
from cappy_select.scorer.batching import MAX_PAIRS_UNDER_WAY


class Slow(Scorer):
    """The model is really run, after a while; remembers what ran together."""

    delay_s = 0.0

    def __init__(self, like: Scorer, **options) -> None:
        super().__init__(like.bundle, cache=False, **options)
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def _run(self, batch):
        self.open.wait(30)
        time.sleep(self.delay_s)
        self.batches.append(len(batch))
        return super()._run(batch)


def scorer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cappy-scorer"]


def assert_idle(scorer: Scorer) -> None:
    """Nothing is queued, nobody holds a place, no thread is left."""
    for _ in range(200):
        if not scorer_threads() and not scorer._batcher._jobs:
            break
        time.sleep(0.01)
    assert scorer_threads() == []
    assert scorer._batcher._jobs == []
    assert scorer._batcher.limiter._free == MAX_PAIRS_UNDER_WAY
    assert not scorer._batcher.limiter._queue


def test_64_threads_get_exactly_the_scores_of_one(tiny):
    scorer = Slow(tiny)
    calls = [awkward_pairs(7, seed=seed) for seed in range(64)]
    expected = [scorer.score_detailed(pairs).scores for pairs in calls]
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda pairs: scorer.score_detailed(pairs).scores, calls))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert_idle(scorer)


async def test_64_tasks_get_exactly_the_scores_of_one(default):
    scorer = Slow(default)
    calls = [[(f"Which river, {n}?", f"answer {'word ' * n}")] for n in range(64)]
    expected = [scorer.score_detailed(pairs).scores for pairs in calls]
    found = await asyncio.gather(*(scorer.ascore_detailed(pairs) for pairs in calls))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.scores.tobytes() == theirs.tobytes()
    assert_idle(scorer)


def test_callers_at_the_same_time_share_batches(tiny):
    scorer = Slow(tiny)
    scorer.open.clear()
    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(scorer.score_detailed, [("question", f"answer {n}")]) for n in range(40)]
        while len(scorer._batcher._jobs) < 40:
            time.sleep(0.01)
        scorer.open.set()
        for call in calls:
            call.result()
    # The first may have run alone; the others were waiting by then.
    assert len(scorer.batches) == 2
    assert sum(scorer.batches) == 40


def test_those_just_served_meet_in_one_batch_again(tiny, monkeypatch):
    """Without a moment's wait the first to come back would run alone, every time: 20 batches."""
    monkeypatch.setattr(batching, "_REUNION_S", 0.25)  # it ends when all are back, rarely by time
    scorer = Slow(tiny)
    scorer.delay_s = 0.02
    meet = threading.Barrier(8)

    def caller(number: int) -> None:
        meet.wait()
        for turn in range(10):
            scorer.score_detailed([("question", f"{number} {turn}")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(caller, range(8)))
    assert sum(scorer.batches) == 80
    assert len(scorer.batches) <= 14
    assert_idle(scorer)


def test_a_lone_caller_waits_for_nothing_and_no_thread_is_left(tiny, monkeypatch):
    """Were it to wait for others, this would take a minute."""
    monkeypatch.setattr(batching, "_REUNION_S", 6.0)
    scorer = Slow(tiny)
    started = time.perf_counter()
    for turn in range(10):
        scorer.score_detailed([("question", str(turn))])
    assert time.perf_counter() - started < 6
    assert_idle(scorer)


def test_a_short_call_gets_in_between_the_shares_of_a_long_one(default):
    scorer = Slow(default)
    finished: list[str] = []

    def score(name: str, pairs) -> None:
        scorer.score_detailed(pairs)
        finished.append(name)

    long = threading.Thread(target=score, args=("long", [("river " * 100, f"answer {n}") for n in range(90)]))
    long.start()
    while len(scorer.batches) < 2:
        time.sleep(0.001)
    score("short", [("Who?", "Me.")])
    long.join()
    assert finished == ["short", "long"]


async def test_cancelling_one_caller_disturbs_no_other(tiny, no_leaks):
    scorer = Slow(tiny)
    scorer.open.clear()
    pairs = awkward_pairs(5)
    kept = [asyncio.create_task(scorer.ascore_detailed(pairs)) for _ in range(4)]
    dropped = [asyncio.create_task(scorer.ascore_detailed([("q", f"dropped {n}")])) for n in range(20)]
    while len(scorer._batcher._jobs) < 24:
        await asyncio.sleep(0.01)
    for task in dropped:
        task.cancel()
    await asyncio.gather(*dropped, return_exceptions=True)
    assert all(task.cancelled() for task in dropped)
    scorer.open.set()
    expected = tiny.score_detailed(pairs).scores
    for result in await asyncio.gather(*kept):
        np.testing.assert_array_equal(result.scores, expected)
    # At most one of the dropped had been taken by then: with the first batch.
    assert sum(scorer.batches) <= 4 * 5 + 1
    assert_idle(scorer)


async def test_1000_cancelled_calls_leak_nothing(tiny, no_leaks):
    scorer = Slow(tiny)
    scorer.delay_s = 0.001
    threads = set(threading.enumerate())
    for start in range(0, 1000, 100):
        tasks = [
            asyncio.create_task(scorer.ascore_detailed([("q", f"answer {n}")] * 30)) for n in range(start, start + 100)
        ]
        await asyncio.sleep(0.0005 * (start // 100))  # at every stage: not begun, encoding, waiting, running
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await asyncio.to_thread(assert_idle, scorer)
    started = {re.split("[-_][0-9]", thread.name)[0] for thread in set(threading.enumerate()) - threads}
    assert started <= {"cappy-encode", "asyncio"}  # the two that encode for async callers stay, as pools do
    np.testing.assert_array_equal((await scorer.ascore_detailed([("q", "a")])).scores, tiny.score("q", ["a"]))


def test_who_finds_no_room_waits_and_is_let_in_in_turn():
    room = Limiter(10)
    first, second, third, fourth = room.enter(6), room.enter(6), room.enter(1), room.enter(100)
    assert [ticket.done() for ticket in (first, second, third, fourth)] == [True, False, False, False]
    room.leave(first, 6)
    assert [ticket.done() for ticket in (second, third, fourth)] == [True, True, False]
    room.leave(second, 6)
    assert not fourth.done()
    room.leave(third, 1)
    assert fourth.done()  # more than the whole room: alone
    room.leave(fourth, 100)
    assert room._free == 10


def test_who_gives_up_waiting_makes_way():
    room = Limiter(10)
    first, second, third = room.enter(10), room.enter(10), room.enter(1)
    assert second.cancel()
    room.leave(first, 10)
    assert third.done()
    room.leave(second, 10)
    room.leave(third, 1)
    assert room._free == 10


async def test_callers_beyond_the_room_hold_no_encoded_pairs(tiny):
    scorer = Slow(tiny)
    scorer.open.clear()
    encoded = 0
    encode = scorer._encode

    def counting(pairs, side):
        nonlocal encoded
        encoded += len(pairs)
        return encode(pairs, side)

    scorer._encode = counting
    calls = [[("q", f"{call} {n}") for n in range(4000)] for call in range(8)]
    tasks = [asyncio.create_task(scorer.ascore_detailed(pairs)) for pairs in calls]
    await asyncio.sleep(1)
    assert encoded <= MAX_PAIRS_UNDER_WAY < 8 * 4000
    scorer.open.set()
    for found, pairs in zip(await asyncio.gather(*tasks), calls, strict=True):
        assert found.scores.shape == (len(pairs),)
    assert encoded == 8 * 4000
    assert_idle(scorer)


def test_an_error_of_the_model_reaches_its_callers_and_the_next_call_works(tiny):
    scorer = Slow(tiny)
    run, scorer._session.run = scorer._session.run, None
    with pytest.raises(TypeError):
        scorer.score("q", ["a"])
    scorer._session.run = run
    assert scorer.score("q", ["a"]).shape == (1,)
    assert_idle(scorer)


def test_one_caller_s_bad_row_fails_no_other(tiny):
    class Picky(Slow):
        def _run(self, batch):
            if any(pair.response.length == 1 for pair in batch):
                raise BundleDamaged("the model can't score this")
            return super()._run(batch)

    scorer = Picky(tiny)
    scorer.open.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(scorer.score, "q", ["yes no yes"])
        while not scorer._batcher._jobs:
            time.sleep(0.001)
        good = [pool.submit(scorer.score, "q", [f"yes no {n}"]) for n in range(7)]
        bad = pool.submit(scorer.score, "q", ["yes"])
        while len(scorer._batcher._jobs) < 9:
            time.sleep(0.001)
        scorer.open.set()
        with pytest.raises(BundleDamaged, match="can't score this"):
            bad.result(timeout=30)
        for n, call in enumerate(good):
            np.testing.assert_array_equal(call.result(timeout=30), tiny.score("q", [f"yes no {n}"]))
        first.result(timeout=30)
    assert_idle(scorer)


def test_scores_of_another_shape_are_an_error_and_the_next_call_works(tiny):
    """As of a model that gives logits of [rows, 1]."""
    scorer = Slow(tiny)

    class Column:
        def run(self, names, feeds, options):
            return [np.zeros((len(feeds["input_ids"]), 1), np.float32)]

    real, scorer._session._session = scorer._session._session, Column()
    with pytest.raises(BundleDamaged, match="expected one each"):
        scorer.score("q", ["a", "b"])
    scorer._session._session = real
    assert scorer.score("q", ["a", "b"]).shape == (2,)
    assert_idle(scorer)


def test_a_scorer_that_is_dropped_frees_its_model_at_once(tiny):
    scorer = Scorer(tiny.bundle)
    scorer.score("q", ["a"])
    session = weakref.ref(scorer._session)
    del scorer
    assert session() is None


def test_a_rejected_batch_is_a_clear_error_for_every_caller(tiny):
    class Broken(Slow):
        def _run(self, batch):
            raise BundleDamaged("the model can't score this")

    scorer = Broken(tiny)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(scorer.score, "q", ["a", str(n)]) for n in range(8)]
        for call in calls:
            with pytest.raises(BundleDamaged, match="can't score this"):
                call.result(timeout=30)
    assert_idle(scorer)
