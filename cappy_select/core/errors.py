"""Every error this library raises, in one tree.

    CappyError
    ├── InputError (ValueError)       the caller's input or a recorded file can't be used
    │   └── UnknownArgument (TypeError)   an argument that there is not; says which one was meant
    ├── MissingExtra (ImportError)    an optional dependency is not installed; names the extra
    ├── BundleError                   a scorer on disk can't be used
    │   ├── BundleNotFound            no such folder or hub id, or a folder that is no bundle
    │   ├── BundleDamaged             a file is missing, or is not the one the manifest describes
    │   └── BundleFormatError         a manifest this version can't read
    ├── ExportError                   a checkpoint can't become a bundle
    ├── DataError                     the making of training data can't go on; what was done is kept
    ├── ProviderError                 one upstream call failed; `kind` says how
    ├── NoCandidates (ExceptionGroup) too few usable answers arrived; names every failure
    ├── NoGoodAnswer                  no answer scored as much as was asked for; has the Selection
    └── StrategyError                 a strategy failed; has the Selection by score

`TruncationWarning` is a warning, not an error: scores were computed, on shortened input. So is `UnscorableWarning`:
labels were computed, against a reference that the measure can't read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from cappy_select.core.types import FailureKind

if TYPE_CHECKING:
    from typing import Self

    from pydantic import ValidationError

    from cappy_select.core.types import Selection, Usage


class CappyError(Exception):
    """Base of all errors of this library."""


class InputError(CappyError, ValueError):
    """The caller's input, or a line of a recorded file, can't be used."""


class UnknownArgument(InputError, TypeError):
    """An argument that a function does not have: it would change nothing, or reach the models as a parameter."""


class MissingExtra(CappyError, ImportError):
    """An optional dependency is not installed. `extra` is an attribute, too.

    Args:
        extra: The extra of cappy-select that installs it, such as `export`.
        needed_for: What the caller wanted, as the message's first words.
        module: The package that was not found.
    """

    def __init__(self, extra: str, needed_for: str, module: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {module!r}, which is not installed: pip install 'cappy-select[{extra}]'"
        )
        self.extra = extra
        self._arguments = extra, needed_for, module

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class BundleError(CappyError):
    """A scorer on disk can't be used."""


class BundleNotFound(BundleError):
    """No such folder or hub id, or a folder that is no bundle."""


class BundleDamaged(BundleError):
    """A file of the bundle is missing, or is not the one its manifest describes."""


class BundleFormatError(BundleError):
    """The manifest is newer than this version, or malformed."""


class ExportError(CappyError):
    """A checkpoint can't become a bundle: wrong kind, damaged, or its scores fail the parity check."""


class DataError(CappyError):
    """The making of training data can't go on: a full disk, a dead worker, a damaged file. What was done is kept."""


class ProviderError(CappyError):
    """One upstream call failed. The arguments are attributes, too.

    Args:
        message: What happened, without secrets.
        kind: The failure's class; decides whether a retry makes sense.
        model: The model that was asked.
        retry_after_s: Seconds the provider asked to wait, if it did.
        usage: Tokens the failed call is known or estimated to have used.
        cost: Dollars of `usage`; None when unknown.

    Raises:
        ValueError: `kind` is none of `FailureKind`.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind,
        model: str,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
        cost: float | None = None,
    ) -> None:
        super().__init__(message)
        if kind not in get_args(FailureKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(FailureKind))}, got {kind!r}")
        self.kind: FailureKind = kind
        self.model = model
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.cost = cost

    @property
    def message(self) -> str:
        """What happened, without the model and the kind."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.model}: {self.kind}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        known = {name: getattr(self, name) for name in ("kind", "model", "retry_after_s", "usage", "cost")}
        return partial(type(self), **known), (self.message,)


class NoCandidates(CappyError, ExceptionGroup[ProviderError]):
    """Too few usable answers arrived. `exceptions` holds one `ProviderError` a failed call.

    `usage` and `cost` are attributes, too.

    Args:
        message: What was asked for and what came; the failures are listed behind it.
        failures: One error for each call that failed.
        usage: Tokens over all calls, failed ones too.
        cost: Dollars over all calls; None when a price is unknown.
    """

    usage: Usage
    cost: float | None

    def __new__(cls, message: str, failures: Sequence[ProviderError], *, usage: Usage, cost: float | None) -> Self:
        self = super().__new__(cls, message, failures)
        self.usage = usage
        self.cost = cost
        return self

    def __init__(self, message: str, failures: Sequence[ProviderError], *, usage: Usage, cost: float | None) -> None:
        super().__init__(message, failures)

    def derive(self, excs: Sequence[ProviderError]) -> NoCandidates:  # type: ignore[override]
        """A group with the same bill for a subset of the failures (`split`, `subgroup`, `except*`).

        Args:
            excs: The failures of the new group.

        Returns:
            The group, with the message, usage and cost of this one.
        """
        return NoCandidates(self.message, excs, usage=self.usage, cost=self.cost)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), usage=self.usage, cost=self.cost), (self.message, list(self.exceptions))

    def __str__(self) -> str:
        # Eight samples of a model that is down fail alike: one line for them.
        counts = Counter(str(failure) for failure in self.exceptions)
        lines = [f"  - {failure}" + (f" (×{count})" if count > 1 else "") for failure, count in counts.items()]
        return "\n".join([self.message, *lines])


class NoGoodAnswer(CappyError):
    """The best answer's score is below `abstain_below`. `selection` is an attribute, too.

    Args:
        selection: All that was weighed, with usage and cost.
        abstain_below: The least raw score that was asked for.
    """

    def __init__(self, selection: Selection, abstain_below: float) -> None:
        super().__init__(
            f"no good answer: the best of {len(selection.candidates)} scored {selection.best.score:.4g}, at least "
            f"{abstain_below:g} was asked for"
        )
        self.selection = selection
        self._arguments = selection, abstain_below

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class StrategyError(CappyError):
    """A strategy failed on answers that are paid for. `selection` is an attribute, too.

    Args:
        message: Which strategy, and how it failed.
        selection: The answers in order of score, with usage and cost.
    """

    def __init__(self, message: str, selection: Selection) -> None:
        super().__init__(message)
        self.selection = selection

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.selection)


class TruncationWarning(UserWarning):
    """Some pairs did not fit the scorer's window and were scored on shortened input."""


class UnscorableWarning(UserWarning):
    """A reference has nothing that the measure counts, so every response is 0 against it."""


def validation_message(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in one line: where, what, and what was got.

    Args:
        error: As pydantic raised it.

    Returns:
        `field.field: what is wrong, got VALUE`, with the value cut to 80 characters; of a whole model's error only what
        is wrong.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}, got {first['input']!r:.80}" if where else message
