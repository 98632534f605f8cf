"""What a provider can do beyond its one call, as one value."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cappy_select.core.types import Candidate, Delta, Message, Request, Usage


@dataclass(frozen=True)
class Capabilities:
    """What a provider offers beside `complete`. It has each as a method of that name, or does not have it: None.

    Attributes:
        unsupported: Which of some parameters it can't honour: sampling parameters by name, `n`, `logprobs`. A provider
            without it is taken to honour all but `n`.
        acted_upon: Which of some parameters its client library would act upon itself (addresses, keys, prices): they
            never come from a caller.
        price: Dollars for a usage, None when unknown: so a call that never answered can be priced, too.
        highest_price: Dollars that a call costs at most, with the provider's own parameters and at its dearest tariff;
            those of the prompt where its answers have no limit of tokens; None when unknown.
        stream: `complete` for one answer: its pieces, then the whole of it. Raises ProviderError.
        count_tokens: A prompt's length in the model's tokens.
        max_prompt_tokens: Tokens that a prompt may have when the answer may have so many; None when unknown.
        max_concurrency: Calls that it can make at a time: an int, no method.
        aclose: Closes its connections, threads or weights. It can't be asked any more.
    """

    unsupported: Callable[[Mapping[str, Any]], Collection[str]] | None = None
    acted_upon: Callable[[Mapping[str, Any]], Collection[str]] | None = None
    price: Callable[[Usage], float | None] | None = None
    highest_price: Callable[[Request], float | None] | None = None
    stream: Callable[[Request], AsyncGenerator[Delta | Candidate, None]] | None = None
    count_tokens: Callable[[Sequence[Message]], int] | None = None
    max_prompt_tokens: Callable[[int | None], int | None] | None = None
    max_concurrency: int | None = None
    aclose: Callable[[], Awaitable[None]] | None = None

    @classmethod
    def of(cls, provider: Any) -> Capabilities:
        """Those of a provider.

        Args:
            provider: Any object with some of these methods, or none.

        Returns:
            Its methods of these names, bound to it; None for each that it has not got.
        """
        return cls(**{field.name: getattr(provider, field.name, None) for field in fields(cls)})

    def cannot(self, name: str, value: Any) -> bool:
        """Whether it says that it can't honour this parameter.

        Args:
            name: A sampling parameter, `n` or `logprobs`.
            value: What is asked for.

        Returns:
            False also when the provider says nothing of what it can't.
        """
        return self.unsupported is not None and name in self.unsupported({name: value})
