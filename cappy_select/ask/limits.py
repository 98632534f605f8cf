"""The limits of asking: time, money, answers, retries, calls at a time. Whoever asks has them as fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cappy_select.ask.breaker import CircuitBreaker


class FanOutConfig(BaseModel):
    """The limits of one fan-out: how long to wait, how many answers are enough, what may be spent."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    deadline_s: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="seconds for all calls together, retries included"
    )
    grace_s: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="seconds for the others once `min_usable` is met; None: until the deadline",
    )
    min_usable: int = Field(1, ge=1, description="answers that can win; with fewer there is no selection")
    max_cost: float | None = Field(
        None, gt=0, allow_inf_nan=False, strict=True, description="dollars over all calls; None: no limit"
    )
    max_candidates: int = Field(1000, ge=1, description="answers that one selection may ask for")
    max_retries: int = Field(
        2, ge=0, description="of one call, on rate limits, timeouts, server errors and lost connections"
    )
    max_concurrency: int = Field(100, ge=1, description="calls to one provider at a time, over all selections")
    cool_down_after: int = Field(5, ge=1, description="failures of a provider in a row, before it is left alone")
    cool_down_s: float = Field(30.0, ge=0, description="how long it is left alone then")

    def breaker(self, name: str, most: int | None = None) -> CircuitBreaker:
        """A circuit breaker with these limits; `most` calls at a time, if the provider says so itself."""
        at_a_time = min(most or self.max_concurrency, self.max_concurrency)
        return CircuitBreaker(at_a_time, self.cool_down_after, self.cool_down_s, name=name)
