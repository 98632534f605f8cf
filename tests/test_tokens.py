from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import transformers
from tasks import choice, open_ended, write

from cappy_select.core.errors import InputError
from cappy_select.data.build import build
from cappy_select.scorer.encoding import PairEncoder
from cappy_select.train.tokens import tokenised


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    rows = [choice(number) for number in range(30)]
    rows += [open_ended(number, instruction=f"{number} " + "the river " * (number * 8)) for number in range(40)]
    build([write(folder / "t.jsonl", rows)], folder / "out", config={"validation": 0.2, "rows_per_shard": 40})
    return folder / "out"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_tokens_are_the_tokenizers_own_and_groups_stand_together(checkpoints, pairs, tmp_path, kind):
    folder = checkpoints[kind]
    encoder = PairEncoder((folder / "tokenizer.json").read_bytes(), 128, folder)
    found = tokenised(pairs, "train", encoder, "x", tmp_path)
    rows = [row for file in sorted(pairs.glob("train-*")) for row in pq.read_table(file).to_pylist()]
    assert len(found) == len(rows)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = theirs(
        [row["instruction"] for row in rows],
        [row["response"] for row in rows],
        truncation="longest_first",
        max_length=128,
        return_token_type_ids=True,
    )
    expected = {}
    for row, ids, types in zip(rows, encoded["input_ids"], encoded["token_type_ids"], strict=True):
        expected.setdefault((row["task"], row["group"]), []).append((ids, types, np.float32(row["score"])))
    ids, types, lengths = found.padded(np.arange(len(found)), 128, pad=0)
    got = [
        (ids[row, : lengths[row]].tolist(), types[row, : lengths[row]].tolist(), found.scores[row])
        for row in range(len(found))
    ]
    assert len(found.groups) - 1 == len(found.tasks) == len(expected)
    for number, (task, group) in enumerate(expected):  # groups in the order in which they first come
        assert got[found.groups[number] : found.groups[number + 1]] == expected[task, group]
        assert found.tasks[number] == task
    assert found.cut == sum(len(row) == 128 for row in encoded["input_ids"]) > 0


def test_what_is_repeated_is_a_group_again_and_not_a_larger_one(checkpoints, tmp_path):
    file = write(tmp_path / "t.jsonl", [choice(number) for number in range(5)])  # of four choices
    build([file], tmp_path / "out", config={"validation": 0, "rows_per_shard": 7, "rows_per_task": 50})
    encoder = PairEncoder((checkpoints["bert"] / "tokenizer.json").read_bytes(), 128, checkpoints["bert"])
    found = tokenised(tmp_path / "out", "train", encoder, "x", tmp_path)
    rows = [tuple(found.ids[start:end].tolist()) for start, end in pairwise(found.starts)]
    groups = [rows[start:end] for start, end in pairwise(found.groups)]
    assert all(len(set(group)) == len(group) for group in groups)
    assert Counter(map(len, groups)) == {4: 12, 2: 1}  # twice and a half the five
    assert found.tasks == ("colors",) * 13


def test_they_are_made_once(checkpoints, pairs, tmp_path):
    folder = checkpoints["bert"]
    encoder = PairEncoder((folder / "tokenizer.json").read_bytes(), 64, folder)
    told = []
    first = tokenised(pairs, "train", encoder, "x", tmp_path, lambda done, total: told.append(done))
    assert sum(told) == len(first)
    tokenised(pairs, "train", encoder, "x", tmp_path, lambda done, total: pytest.fail("made again"))
    other = tokenised(pairs, "train", encoder, "y", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert (other.starts == first.starts).all()


def test_a_side_without_rows_is_an_error(checkpoints, tmp_path):
    folder = checkpoints["bert"]
    encoder = PairEncoder((folder / "tokenizer.json").read_bytes(), 64, folder)
    build([write(tmp_path / "t.jsonl", [choice(1)])], tmp_path / "out", config={"validation": 0})
    with pytest.raises(InputError, match="no row for validation"):
        tokenised(tmp_path / "out", "validation", encoder, "x", tmp_path)
    with pytest.raises(InputError, match="holds no pairs"):
        tokenised(tmp_path / "nowhere", "train", encoder, "x", tmp_path)
