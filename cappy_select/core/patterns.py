"""Regular expressions of users and clients, on texts of models: they can be stopped, and other threads run meanwhile.

Python's `re` can't be stopped, and nothing else runs until it is done: `(a+)+$` on forty letters takes longer than
anybody waits. So these are matched by `regex`, which reads `re`'s syntax, has a timeout and lets other threads run.
Two things of it are left out, because they can take all memory within that time: patterns that call themselves, and
those that a small text grows into (`((a{1000}){1000}){1000}`). Fuzzy matching is left out because `re` reads it
as text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cappy_select.core.errors import InputError
from cappy_select.core.time_limit import OutOfTime, time_left

if TYPE_CHECKING:
    import regex

SECONDS = 1.0
"""What one search may take, of the processor's time."""
LONGEST = 50_000  # characters; each takes some 10 µs to compile
GROWS_TO = 200_000  # parts after repetition; each takes some 250 bytes

_FLAGS = ("ASCII", "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE")  # by the same names in both
_CALL = re.compile(r"\\.|(\(\?(?:R\)|[+-]?\d+\)|&|P>))", re.DOTALL)
_BRACE = re.compile(r"(\\[pPN]\{|\\.|\{\d*,?\d*\})|\{", re.DOTALL)
_REPEAT = re.compile(r"(.?)\{(\d+)", re.DOTALL)
_MAY_BE_VERBOSE = re.compile(r"\(\?[a-zA-Z0-9]*x")


class Pattern:
    """A compiled regular expression, in the syntax of `re`."""

    def __init__(self, pattern: str | re.Pattern[str], *, grows_to: int = GROWS_TO) -> None:
        """Compile it.

        Args:
            pattern: A pattern, or one that `re` has compiled: its flags are kept.
            grows_to: How many parts it may have once its repetitions are written out.

        Raises InputError for what is none, or is too large.
        """
        text, flags = (pattern.pattern, pattern.flags) if isinstance(pattern, re.Pattern) else (pattern, 0)
        if not isinstance(text, str):
            raise InputError(f"a pattern must be text, got {type(text).__name__} {text!r:.80}")
        self.pattern = text
        if len(text) > LONGEST:
            raise InputError(
                f"{text!r:.80} is too long a pattern: {len(text):,} characters, at most {LONGEST:,} are read"
            )
        if any(found[1] for found in _CALL.finditer(text)):
            raise InputError(f"{text!r:.80} calls itself, as patterns here may not")
        if (size := _grown(text, verbose=bool(flags & re.VERBOSE))) > grows_to:
            raise InputError(f"{text!r:.80} is too large with its repetitions written out: {size:,} parts, "
                             f"at most {grows_to:,} can be")  # fmt: skip
        import regex  # when a pattern is the first: most programs have none

        own = regex.VERSION0
        for name in _FLAGS:
            own |= getattr(regex, name) if flags & getattr(re, name) else 0
        try:
            self._compiled = regex.compile(_without_fuzz(text), own, cache_pattern=False)
        except Exception as error:  # `regex.error`, and what a pattern that it does not foresee brings about
            raise InputError(f"{text!r:.80} is no regular expression: {error}") from error

    @property
    def groups(self) -> int:
        """How many groups it has."""
        groups: int = self._compiled.groups
        return groups

    def search(self, text: str) -> regex.Match[str] | None:
        """The first match. Raises OutOfTime."""
        try:
            return self._compiled.search(text, timeout=time_left(SECONDS), concurrent=True)
        except TimeoutError as error:
            raise self._out_of_time() from error

    def last(self, text: str) -> regex.Match[str] | None:
        """The last match of those that do not overlap. Raises OutOfTime."""
        last = None
        try:
            for last in self._compiled.finditer(text, timeout=time_left(SECONDS), concurrent=True):  # noqa: B007
                pass
        except TimeoutError as error:
            raise self._out_of_time() from error
        return last

    def _out_of_time(self) -> OutOfTime:
        return OutOfTime(f"the pattern {self.pattern!r:.80} had not come to an end in time")


def _grown(text: str, *, verbose: bool) -> int:
    """At most so many parts has a pattern whose repetitions are written out, as `regex` does with the first number of
    `{2,5}`. Repetitions of groups may stand within one another, those of single characters only within groups."""
    verbose = verbose or bool(_MAY_BE_VERBOSE.search(text))  # there may be blanks and comments before a brace
    single, nested = 1, 1
    for before, count in _REPEAT.findall(text):
        times = min(int(count[:10]), 10**9) or 1
        if before == ")" or verbose:
            nested = min(nested * times, 10**12)
        else:
            single = max(single, times)
    return len(text) * single * nested if single * nested > 1 else 1


def _without_fuzz(text: str) -> str:
    """With every brace escaped that repeats nothing: `(foo){e}` allows errors in `regex`, and is text in `re`."""
    return _BRACE.sub(lambda found: found[1] or r"\{", text)
