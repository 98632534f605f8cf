"""The limits of a selection, once: every door to a `Selector` takes its limits from here."""

from __future__ import annotations

from copy import copy
from typing import Any

from pydantic import Field

from cappy_select.ask.limits import FanOutConfig


class SelectorConfig(FanOutConfig):
    """How long to wait, how many answers are enough, what may be spent, and what is good enough.

    `Selector`, ChatCappy, CappySelector, the panels' YAML and the options of `cappy select` have these fields under
    these names, with these defaults. (ChatCappy calls `deadline_s` `timeout`, as LangChain's models do.)

    Attributes:
        deadline_s: Seconds for all calls together, retries included.
        grace_s: Seconds for the others once `min_usable` is met; None: until the deadline.
        min_usable: Answers that can win; with fewer there is no selection.
        max_cost: Dollars over all calls; None: no limit.
        max_candidates: Answers that one selection may ask for.
        max_retries: Of one call, on rate limits, timeouts, server errors and lost connections.
        max_concurrency: Calls to one provider at a time, over all selections.
        cool_down_after: Failures of a provider in a row, before it is left alone.
        cool_down_s: Seconds that it is left alone then.
        accept_cut_off: Answers that a limit cut off can win; None: as the plan says.
        stop_when: A score that is good enough: the other calls are cancelled.
        abstain_below: A score that the winner must have, else `NoGoodAnswer` is raised.
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
    """The pydantic field of a limit, for a model that offers it as well.

    Args:
        name: A field of `SelectorConfig`.

    Returns:
        A copy of the field, with its default, its bounds and its description.

    Raises:
        KeyError: there is no such field.
    """
    return copy(SelectorConfig.model_fields[name])
