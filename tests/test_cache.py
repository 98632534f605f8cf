from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tiny import awkward_pairs

from cappy_select import InputError, ScoreCache, Scorer
from cappy_select.scorer.cache import Known


class Counting(Scorer):
    rows = 0

    def _run(self, batch):
        self.rows += len(batch)
        return super()._run(batch)


def test_a_known_pair_is_not_run_again_and_its_score_is_the_same_bits(tiny):
    scorer, fresh = Counting(tiny.bundle), Counting(tiny.bundle, cache=False)
    pairs = awkward_pairs(40)
    first, again = scorer.score_detailed(pairs), scorer.score_detailed(pairs[::-1])
    distinct = len(set(pairs))
    assert scorer.rows == distinct
    assert again.scores[::-1].tobytes() == first.scores.tobytes() == fresh.score_detailed(pairs).scores.tobytes()
    np.testing.assert_array_equal(again.cut[::-1], first.cut)
    assert scorer.cache_info()[:4] == (distinct, distinct, 0, distinct)


def test_the_switch_turns_it_off(tiny):
    scorer = Counting(tiny.bundle, cache=False)
    scorer.score("q", ["a", "b"])
    scorer.score("q", ["a", "b"])
    assert scorer.rows == 4
    assert scorer.cache_info() is None


def test_it_forgets_what_was_not_used_for_longest(tiny):
    scorer = Counting(tiny.bundle, cache=ScoreCache(3))
    scorer.score("q", ["a", "b", "c"])
    scorer.score("q", ["a"])
    scorer.score("q", ["d"])  # b goes
    assert scorer.cache_info().evictions == 1
    scorer.score("q", ["a", "c", "d"])
    assert scorer.rows == 4
    scorer.score("q", ["b"])
    assert scorer.rows == 5
    assert scorer.cache_info().pairs == 3


def test_a_shared_cache_keeps_bundles_and_sides_apart(bundles):
    cache = ScoreCache()
    bert, roberta = (Scorer(bundles[kind], cache=cache) for kind in ("bert", "roberta"))
    alone = Scorer(bundles["roberta"], cache=False)
    pair = ("which river " * 400, "yes")
    bert.score_detailed([pair])
    for side in ("left", "right"):
        found = roberta.score_detailed([pair], instruction_side=side).scores
        np.testing.assert_array_equal(found, alone.score_detailed([pair], instruction_side=side).scores)
    assert cache.info()[:2] == (0, 3)
    Counting(bundles["bert"], cache=cache).score_detailed([pair])
    assert cache.info().hits == 1


def test_where_one_text_ends_and_the_other_begins_matters(tiny):
    scorer, fresh = Counting(tiny.bundle), Scorer(tiny.bundle, cache=False)
    for pair in (("river peru", "yes"), ("river", " peruyes"), ("river peruyes", ""), ("", "river peruyes")):
        assert scorer.score_pairs([pair]) == fresh.score_pairs([pair])
    assert scorer.rows == 4


async def test_what_was_scored_before_a_cancel_is_known_after_it(tiny):
    scorer = Counting(tiny.bundle)
    pairs = [("q", f"{n} {'word ' * 200}") for n in range(300)]
    done = []
    task = asyncio.create_task(scorer.ascore_detailed(pairs, on_progress=done.append))
    while not done:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 0 < scorer.cache_info().pairs < 300


def test_a_cache_of_nothing_is_refused():
    for size in (0, -1, 1.5, None):
        with pytest.raises(InputError, match="cache=False"):
            ScoreCache(size)


def test_clear_forgets_and_counts_on():
    cache = ScoreCache()
    key = ("digest", "right", b"q", b"a")
    cache.keep({key: Known(0.5, 0, 0)})
    assert cache.find([key]) == {key: Known(0.5, 0, 0)}
    cache.clear()
    assert cache.find([key]) == {}
    assert cache.info() == (1, 1, 0, 0, 20_000)
