"""Small tasks to make pairs of, and what was made of them."""

from __future__ import annotations

import collections
import hashlib
import json
import random
import sys

import pytest

from cappy_select.ask.recorded import Recorded
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore

COMMAND = [sys.executable, "-m", "cappy_select", "build"]
COLORS = ["red", "green", "blue", "yellow"]


def choice(number: int, task: str = "colors", **more) -> dict:
    right = COLORS[number % 4]
    named = {"id": f"{task}#{number}", "task": task, "instruction": f"Which colour is thing {number} of {task}?"}
    return named | {"references": [right], "choices": COLORS} | more


def open_ended(number: int, task: str = "facts", **more) -> dict:
    named = {"id": f"{task}#{number}", "task": task, "instruction": f"Say something of the number {number} in {task}."}
    return named | {"references": [f"The number {number} stands after {number - 1}."], "choices": None} | more


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def tasks(tmp_path):
    rows = [choice(number) for number in range(40)] + [open_ended(number) for number in range(60)]
    random.Random(0).shuffle(rows)
    return write(tmp_path / "tasks.jsonl", rows)


def rows_of(folder, side="train"):
    import pyarrow.parquet as pq

    return [row for file in sorted(folder.glob(f"{side}-*.parquet")) for row in pq.read_table(file).to_pylist()]


def content(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def counted(rows, *names):
    return collections.Counter(tuple(row[name] for name in names) for row in rows)


@pytest.fixture
def store(tmp_path, tasks):
    made = tmp_path / "samples.db"
    with SampleStore(made, write=True) as opened:
        for line in tasks.read_text().splitlines():
            instance = Instance(**json.loads(line))
            number = int(instance.id.split("#")[1])
            right = instance.references[0]
            answers = [(right, None), ("The number stands after.", None), ("Nothing.", number % 5 == 0), ("", None)]
            rows = [
                (Key("m", "{}", place), Recorded(model="m", response=text, correct=correct))
                for place, (text, correct) in enumerate(answers + answers[1:2])  # one twice
            ]
            opened.add(instance, rows)
    return made
