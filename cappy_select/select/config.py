"""The limits of a selection, once: every door to a `Selector` takes its limits from here."""

from __future__ import annotations

from copy import copy
from typing import Any

from pydantic import Field

from cappy_select.ask.fan_out import FanOutConfig


class SelectorConfig(FanOutConfig):
    """How long to wait, how many answers are enough, what may be spent, and what is good enough.

    `Selector`, ChatCappy, CappySelector, the panels' YAML and the options of `cappy select` have these fields under
    these names, with these defaults. (ChatCappy calls `deadline_s` `timeout`, as LangChain's models do.)
    """

    accept_cut_off: bool | None = Field(
        None, description="answers that a limit cut off can win; None: as the plan says"
    )
    stop_when: float | None = Field(
        None, allow_inf_nan=False, strict=True, description="a score that is good enough: the other calls are cancelled"
    )
    abstain_below: float | None = Field(
        None,
        allow_inf_nan=False,
        strict=True,
        description="a score that the winner must have, else `NoGoodAnswer` is raised",
    )


def limit(name: str) -> Any:
    """The pydantic field of a limit, for a model that offers it as well. Raises KeyError for a name that is none."""
    return copy(SelectorConfig.model_fields[name])
