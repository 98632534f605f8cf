"""What the calls to one provider share: a bound on how many run at a time, and a pause after repeated failure."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from cappy_select.core.errors import ProviderError
from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.limiter import Limiter
from cappy_select.core.types import FailureKind

_logger = logging.getLogger(__name__)

# What says something about the provider, and not about this prompt.
PROVIDER_DOWN: frozenset[FailureKind] = frozenset(
    {"rate_limit", "timeout", "auth", "server", "connection", "invalid_response"}
)


class Admission(NamedTuple):
    """May a call be made? `refusal` says why not; `trial`: it decides for those that wait out the pause."""

    refusal: str | None = None
    trial: bool = False


class CircuitBreaker:
    """One provider's way, for callers on any thread and event loop.

    After `cool_down_after` calls in a row failed, no call is made for `cool_down_s`; then one is tried, and
    its success or failure decides for the others.
    """

    def __init__(
        self,
        max_concurrency: int,
        cool_down_after: int,
        cool_down_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "a provider",
    ) -> None:
        self._name = name
        self._max_concurrency = max_concurrency
        self._cool_down_after, self._cool_down_s, self._clock = cool_down_after, cool_down_s, clock
        self._failed = 0  # in a row
        self._open_until = 0.0
        self._last: ProviderError | None = None
        self.gives_n = True  # until a call for several answers brings one
        self.start_anew()
        starts_anew_in_child(self)

    def start_anew(self) -> None:
        """Also in a forked child: the calls that hold places are the parent's."""
        self._limiter = Limiter(self._max_concurrency)
        self._lock = threading.Lock()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for one of the places, and keep it."""
        limiter = self._limiter
        ticket = limiter.enter()
        try:
            if not ticket.done():
                await asyncio.wrap_future(ticket)
            yield
        finally:
            limiter.leave(ticket)

    def ended(self, error: ProviderError | None) -> None:
        """A call ended, with answers or with this error. An error that is about the prompt shows that it is there."""
        with self._lock:
            if error is None or error.kind not in PROVIDER_DOWN:
                if self._failed >= self._cool_down_after:
                    _logger.info("%s: it answers again, and is asked as before", self._name)
                self._failed, self._open_until, self._last = 0, 0.0, None
                return
            self._failed, self._last = self._failed + 1, error
            if self._failed >= self._cool_down_after:
                self._open_until = self._clock() + self._cool_down_s
                _logger.warning(
                    "%s: left alone for %g s: it failed %d times in a row, last with %s",
                    *(self._name, self._cool_down_s, self._failed, error.kind),
                )

    def abandoned(self) -> None:
        """The trial was cancelled, and says nothing: another may be made."""
        with self._lock:
            self._open_until = min(self._open_until, self._clock())

    @property
    def pause_s(self) -> float:
        """Seconds for which no call may be made; 0: one may."""
        with self._lock:
            return max(0.0, self._open_until - self._clock())

    @property
    def lets_through(self) -> bool:
        """Whether calls may be made: False while its provider cools down."""
        with self._lock:
            return self._clock() >= self._open_until

    def admit(self) -> Admission:
        """May a call be made now? After a pause the first one, the trial, keeps the others out."""
        with self._lock:
            now = self._clock()
            if self._failed < self._cool_down_after or self._last is None:
                return Admission()
            if now >= self._open_until:
                self._open_until = now + self._cool_down_s
                return Admission(trial=True)
            return Admission(
                f"it failed {self._failed} times in a row (last: {self._last.kind}: {self._last.message}) "
                f"and is left alone for another {self._open_until - now:.1f} s"
            )


class Budget:
    """A money limit of one selection, or of a run: what was spent, and what the calls under way may yet cost."""

    def __init__(self, dollars: float | None, *, spent: float = 0.0) -> None:
        self._dollars = dollars
        self.spent = spent
        self._promised = 0.0
        self.under_way = 0  # calls that money is promised for

    def promise(self, estimate: float) -> str | None:
        """Why a call of this price may not be made; None when it may, and the money is kept for it."""
        if self._dollars is not None and not math.isfinite(estimate):
            return f"not made: nobody knows what it may cost, and there is max_cost=${self._dollars:g}"
        if self._dollars is not None and self.spent + self._promised + estimate > self._dollars:
            return (
                f"not made: ${self.spent:.6f} are spent and ${self._promised:.6f} promised, another "
                f"${estimate:.6f} would pass max_cost=${self._dollars:g}"
            )
        self._promised += estimate
        self.under_way += 1
        return None

    def settle(self, estimate: float, cost: float | None) -> None:
        """A call ended: its price in place of its estimate. Unknown: the estimate stands."""
        self.under_way -= 1
        self._promised = self._promised - estimate if self.under_way else 0.0  # nothing is left of rounding
        self.spent += estimate if cost is None else cost

    @property
    def is_spent(self) -> bool:
        """Nothing is left."""
        return self._dollars is not None and self.spent >= self._dollars
