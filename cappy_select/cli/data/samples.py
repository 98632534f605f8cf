"""`cappy data samples`: stored samples as recorded answers."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from cappy_select.data.instances import Instance
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import Stored


def samples(
    store: Annotated[str, typer.Argument(help="A sample store.")],
    json: Annotated[bool, typer.Option("--json", help="Changes nothing: it is JSON in any case.")] = False,
) -> None:
    """Print stored samples as JSONL: an instance with its candidates a line.

    That is what `cappy eval selection`, `replay:FILE` and `--recorded` read.
    """
    with SampleStore(store) as opened:
        for instance, stored in opened.instances():
            print(jsonlib.dumps(_as_row(instance, stored), ensure_ascii=False))


def _as_row(instance: Instance, stored: list[Stored]) -> dict[str, Any]:
    return {
        "id": instance.id,
        "task": instance.task,
        "instruction": instance.instruction,
        "references": list(instance.references),
        "candidates": [one.sample.model_dump(mode="json", exclude_none=True) for one in stored],
    }
