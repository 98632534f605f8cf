"""A sample and its row in a sample store: the columns, and the way there and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cappy_select.ask.recorded import Recorded
from cappy_select.core.errors import InputError
from cappy_select.core.figures import dollars_of
from cappy_select.core.json_text import loads
from cappy_select.core.types import Usage
from cappy_select.data.instances import Instance

COLUMNS = {
    "number": "INTEGER PRIMARY KEY",
    "instance": "INTEGER NOT NULL REFERENCES instances",
    "model": "TEXT NOT NULL",
    "params": "TEXT NOT NULL",
    "place": "INTEGER NOT NULL",
    "response": "TEXT NOT NULL",
    "finish_reason": "TEXT",
    "logprob_sum": "REAL",
    "logprob_mean": "REAL",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "estimated": "INTEGER",
    "cost": "REAL",
    "latency_s": "REAL",
    "correct": "INTEGER",
    "human": "REAL",
    "recorded": "INTEGER NOT NULL",
}
"""Of the table `samples`, in its order, as SQL declares them. A store's format is made of them."""

INSERT = f"INSERT OR IGNORE INTO samples ({', '.join(COLUMNS)}) VALUES (:{', :'.join(COLUMNS)})"
"""Takes what `row_of` gives."""
SELECT = f"SELECT {', '.join(COLUMNS)} FROM samples WHERE instance=? ORDER BY model, params, place"
"""Gives what `stored_of` takes."""

_LONGEST = 100_000_000  # characters of a text; SQLite takes a thousand million bytes
_SHORTENED = 1000  # characters of what is only shown: reasons, messages


class Key(NamedTuple):
    """Which sample of an instance."""

    model: str
    params: str  # canonical JSON
    place: int


class Stored(NamedTuple):
    """One sample of an instance, by its number in the store."""

    number: int
    sample: Recorded
    place: int


def key_of(instance: Instance) -> str:
    """The instance's name in a store."""
    named = json.dumps([instance.task, instance.id, instance.instruction], ensure_ascii=False)
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:32]


def canonical(params: Mapping[str, Any]) -> str:
    """Sampling parameters as a key."""
    return storable(json.dumps(params, sort_keys=True, ensure_ascii=False))


def row_of(instance: int, key: Key, sample: Recorded, *, recorded: bool) -> dict[str, Any]:
    """A sample's row, its number left to the store.

    Args:
        instance: The number of its instance.
        key: Which of the instance's samples it is; its model and parameters are stored, not the sample's.
        sample: What is stored.
        recorded: Whether it was not asked for here.

    Returns:
        A value for each of `COLUMNS`.

    Raises:
        InputError: a text without end.
    """
    usage = sample.usage
    return {
        "number": None,
        "instance": instance,
        **key._asdict(),
        "response": storable(sample.response),
        "finish_reason": None if sample.finish_reason is None else shortened(sample.finish_reason),
        "logprob_sum": sample.logprob_sum,
        "logprob_mean": sample.logprob_mean,
        "prompt_tokens": usage and usage.prompt_tokens,
        "completion_tokens": usage and usage.completion_tokens,
        "estimated": usage and usage.estimated,
        "cost": sample.cost,
        "latency_s": sample.latency_s,
        "correct": sample.correct,
        "human": sample.human,
        "recorded": recorded,
    }


def stored_of(values: Sequence[Any]) -> Stored:
    """The sample of a row, its values in the order of `COLUMNS`."""
    row = dict(zip(COLUMNS, values, strict=True))
    usage = None
    if row["prompt_tokens"] is not None:
        usage = Usage(
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            estimated=bool(row["estimated"]),
        )
    sample = Recorded(
        model=row["model"],
        response=row["response"],
        sampling=loads(row["params"]),
        finish_reason=row["finish_reason"],
        usage=usage,
        cost=dollars_of(row["cost"]),
        latency_s=row["latency_s"] or 0.0,
        logprob_sum=row["logprob_sum"],
        logprob_mean=row["logprob_mean"],
        correct=None if row["correct"] is None else bool(row["correct"]),
        human=row["human"],
    )
    return Stored(row["number"], sample, row["place"])


def storable(text: str) -> str:
    """SQLite stores UTF-8: a lone surrogate, which some models send, becomes `?`. Raises InputError for a text without
    end."""
    if len(text) > _LONGEST:
        raise InputError(f"a text of {len(text)} characters can't be stored, at most {_LONGEST} can")
    return text.encode(errors="replace").decode()


def shortened(text: str) -> str:
    """The beginning of a text that is only shown."""
    return storable(text if len(text) <= _SHORTENED else text[: _SHORTENED - 1] + "…")
