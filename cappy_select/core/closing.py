"""`close`, `aclose` and `with`, for what holds connections, threads or weights."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from cappy_select.core import background


class Closable:
    """Base of what can be closed: a subclass says how in `aclose`, which is safe to call twice."""

    async def aclose(self) -> None:
        """Let go of what it holds: here, nothing."""

    def close(self) -> None:
        """`aclose` for synchronous callers."""
        background.run(self.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()
