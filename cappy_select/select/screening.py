"""Which of the answers that arrive can win: the gates at work, within the time that is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cappy_select.core import background
from cappy_select.core.daemon_pool import PoolFull
from cappy_select.core.types import Candidate, Request
from cappy_select.select.gates import FORMAL, Gate, reason_against


async def screened(
    answers: Sequence[tuple[Candidate, Request]], gates: Sequence[Gate], form: Sequence[Gate], seconds: float
) -> list[Candidate]:
    """The answers, those that a gate objects to with its reason in `rejected`.

    Args:
        answers: Each with the request that it answers.
        gates: The first one, `Complete`, takes microseconds, and is asked here and now.
        form: More gates, where a request has tools or a format.
        seconds: How long the gates of one answer may take.
    """
    reasons: list[str | None] = [reason_against(*answer, gates[:1]) for answer in answers]
    formal = any(request.params.get(name) for _, request in answers for name in FORMAL)
    asked_of = (*gates, *form) if formal else gates
    if len(asked_of) > 1:  # each answer by itself: one that takes all the time must not take that of the others
        asked = [place for place, reason in enumerate(reasons) if reason is None]
        said = await asyncio.gather(*(_said_by(asked_of, *answers[place], seconds) for place in asked))
        for place, reason in zip(asked, said, strict=True):
            reasons[place] = reason
    return [
        candidate if reason is None else candidate.model_copy(update={"rejected": reason})
        for (candidate, _), reason in zip(answers, reasons, strict=True)
    ]


async def _said_by(gates: Sequence[Gate], candidate: Candidate, request: Request, seconds: float) -> str | None:
    """Why one of the gates objects to an answer; that they did not end is a reason too."""
    try:
        return await background.users_work(lambda: reason_against(candidate, request, gates), seconds)
    except TimeoutError:
        return "its gates had not ended in time"
    except PoolFull as error:
        return f"its gates could not run: {error}"
