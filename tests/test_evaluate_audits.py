"""Audits of a scorer whose faults are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cappy_select.evaluate.audits import Audited, audit, audit_picture, audit_tables
from cappy_select.evaluate.report import Report, write_report


def groups(score, count=200, answers=6, seed=0):
    """Prompts with answers of random length and quality, and the scores that a function makes of them."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = random.permutation(np.arange(10, 10 + answers))
        quality = random.random(answers)
        made.append(Audited(score(lengths, quality), lengths, quality))
    return made


def test_a_scorer_that_likes_length_is_found_out_and_a_just_one_is_not():
    vain = audit(groups(lambda lengths, quality: lengths / 10)).length
    assert (vain.score, vain.longest_picked, vain.shortest_picked) == (pytest.approx(1), 1.0, 0.0)
    assert abs(vain.quality) < 0.1
    assert vain.bias.low > 0.8
    assert vain.longest_best == pytest.approx(1 / 6, abs=0.08)
    just = audit(groups(lambda lengths, quality: quality)).length
    assert (just.bias.mean, just.bias.low, just.bias.high) == (0, 0, 0)
    assert just.longest_picked == just.longest_best
    assert just.prompts == 200
    terse = audit(groups(lambda lengths, quality: -lengths)).length
    assert (terse.score, terse.shortest_picked) == (pytest.approx(-1), 1.0)


def test_length_that_is_worth_what_it_is_liked_for_is_no_bias():
    rows = [Audited([0.1, 0.2, 0.3], [1, 2, 3], [0.0, 0.5, 1.0])] * 5
    assert audit(rows).length.bias.mean == 0
    assert audit(rows).length.quality == pytest.approx(1)


def test_only_prompts_that_can_tell_count_and_ties_are_shared():
    rows = [
        Audited([0.9, 0.1], [5, 5], [1, 0]),  # the same length
        Audited([0.9, 0.1], [5, 9], [1, 1]),  # the same quality
        Audited([0.5, 0.5], [5, 9], [1, 0]),  # the same score
        Audited([0.9, 0.1, 0.1], [1, 9, 5], [1, 1, 0]),
    ]
    found = audit(rows).length
    assert found.prompts == 1
    assert (found.longest_best, found.shortest_best, found.longest_picked) == (0.5, 0.5, 0.0)
    # Ranks of the scores 3, 1.5, 1.5; of the lengths 1, 3, 2; of the quality 2.5, 2.5, 1.
    assert found.score == pytest.approx(-np.sqrt(3) / 2)
    assert found.quality == pytest.approx(0)
    assert audit(rows[:3]).length is None


def test_bands_hold_the_answers_of_their_quality():
    rows = [Audited([0.1, 0.3, 0.6, 0.8], [1, 2, 3, 4], [0.0, 0.2, 0.19, 1.0])]
    bands = audit(rows).bands
    assert [(band.low, band.n) for band in bands] == [(0.0, 2), (0.2, 1), (0.4, 0), (0.6, 0), (0.8, 1)]
    assert bands[0].mean == pytest.approx(0.35)
    assert bands[0].spread == pytest.approx(0.25)
    assert (bands[0].share, bands[2].mean, bands[2].spread) == (0.5, None, None)


def test_correlations_are_over_all_answers():
    rows = [Audited([0.1, 0.2], [1, 2], [0.0, 0.1]), Audited([0.3, 9.0], [1, 2], [0.2, 0.3])]
    found = audit(rows)
    assert found.spearman == pytest.approx(1)
    assert found.pearson == pytest.approx(np.corrcoef([0.1, 0.2, 0.3, 9.0], [0.0, 0.1, 0.2, 0.3])[0, 1])


def test_calibration_is_of_clipped_scores_in_ten_equal_bins():
    random = np.random.default_rng(0)
    truth = random.random(5000)
    right = (random.random(5000) < truth).astype(float)
    honest = audit([Audited(truth, np.ones(5000), right)])
    assert [each.n for each in honest.bins] == [500] * 10
    assert all(each.score == pytest.approx(each.quality, abs=0.07) for each in honest.bins)
    assert honest.calibration_error < 0.03
    proud = audit([Audited(truth + 0.4, np.ones(5000), right)])
    expected = (np.minimum(truth + 0.4, 1) - truth).mean()
    assert proud.calibration_error == pytest.approx(expected, abs=0.03)
    assert proud.bins[-1].score > 1


def test_scores_that_are_not_finite_are_passed_over_and_nothing_is_no_error():
    found = audit([Audited([np.nan, 0.5, np.inf], [1, 2, 3], [0, 1, 1])])
    assert (found.prompts, found.answers, found.length) == (1, 1, None)
    for rows in ([], [Audited([], [], [])], [Audited([np.nan], [1], [1])]):
        empty = audit(rows)
        assert (empty.answers, empty.bins, empty.calibration_error, empty.pearson) == (0, (), None, None)
        assert len(audit_tables(empty)) == 2
    with pytest.raises(ValueError, match="2 scores, 1 lengths"):
        audit([Audited([0, 1], [1], [0, 1])])


@pytest.mark.parametrize("rows", [groups(lambda lengths, quality: quality, 20), []])
def test_tables_and_the_picture_make_a_report(tmp_path, rows):
    found = audit(rows)
    tables = audit_tables(found, "test.jsonl")
    assert all(table.title.endswith(": test.jsonl") for table in tables)
    picture = audit_picture(found, "audit", "test.jsonl")
    assert write_report(tmp_path, Report("Audit", tables=tables, pictures=[picture], data=found))
    assert (tmp_path / "audit.png").stat().st_size > 5000
    assert json.loads((tmp_path / "report.json").read_text())["answers"] == 6 * len(rows)
    assert "Expected calibration error" in (tmp_path / "report.md").read_text()
