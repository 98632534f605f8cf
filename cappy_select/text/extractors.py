"""What of a response is compared with other responses: its final answer, in one spelling."""

from __future__ import annotations

from collections.abc import Callable

from cappy_select.core.errors import InputError
from cappy_select.core.patterns import Pattern
from cappy_select.core.types import Candidate
from cappy_select.text.messages import response_text
from cappy_select.text.numbers import closed_up, number, plain_signs, spelled

Extract = Callable[[Candidate], str]
"""The answer within a candidate, ready to be compared; empty when there is none."""

_EDGES = ".,;:!?\"'`´’‘“”«»()[]{}<>*_~…。、，；：！？「」『』（）《》"
_DASHES = {"", "-", "‐", "‑", "‒", "–", "—", "―"}


def plain(text: str) -> str:
    """Lower case, without English articles and the punctuation around words; a number in one spelling.

    The normalisation of SQuAD, which takes all punctuation away and so can't tell -3 from 3, or 1.5 from 15. Composed
    (NFC), without characters that nobody sees; a number keeps its currency or percent sign.
    """
    words = [word for word in map(_plain_word, closed_up(plain_signs(text)).lower().split()) if word not in _DASHES]
    return " ".join([word for word in words if word not in {"a", "an", "the"}] or words)  # the choice `A` is no article


def _plain_word(word: str) -> str:
    bare = word.strip(_EDGES)
    return (spelled(bare) or bare) if bare and not bare.isalpha() else bare


def whole_text(candidate: Candidate) -> str:
    """The whole response, normalised (`plain`)."""
    return plain(response_text(candidate.message))


def last_number(candidate: Candidate) -> str:
    """The last number in the response."""
    return number(response_text(candidate.message))


def last_line(candidate: Candidate) -> str:
    """The last line that is not empty, normalised."""
    lines = response_text(candidate.message).strip().splitlines()
    return plain(lines[-1]) if lines else ""


def boxed(candidate: Candidate) -> str:
    r"""What stands in the last `\boxed{...}`, as mathematics models are asked to write; braces may nest."""
    text = response_text(candidate.message)
    start = text.rfind(r"\boxed{")
    if start < 0:
        return ""
    depth, begin = 1, start + len(r"\boxed{")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            found = "".join(plain_signs(text[begin:place]).split())
            return spelled(found) or found
    return ""


def after(marker: str) -> Extract:
    """What follows the last occurrence of a marker such as `####` or `The answer is`, to the end of its line."""
    if not marker:
        raise InputError("the marker is empty")

    def extract(candidate: Candidate) -> str:
        _, found, rest = response_text(candidate.message).rpartition(marker)
        lines = rest.strip().splitlines()
        return plain(lines[0]) if found and lines else ""

    return extract


def matching(pattern: str) -> Extract:
    """The last match of a regular expression: its first group if it has one, else all of it."""
    compiled = Pattern(pattern)

    def extract(candidate: Candidate) -> str:
        found = compiled.last(response_text(candidate.message))
        return plain(found[min(1, compiled.groups)] or "") if found else ""

    return extract


_NAMED = {"text": whole_text, "number": last_number, "line": last_line, "boxed": boxed}


def extractor(name: str) -> Extract:
    r"""What finds the answer within a candidate, by name.

    Args:
        name: `text`: the whole response; `number`: its last number; `line`: its last line that is not empty; `boxed`:
            what stands in its last `\boxed{...}`; `after:MARKER`: what follows the last occurrence of the marker in its
            line; `regex:PATTERN`: the last match, of its first group if it has one.

    Returns:
        A function from a candidate to its answer in one spelling, so that answers can be compared; empty for none.

    Raises:
        InputError: there is no such name, the marker is empty, or the pattern is none or too large.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "after":
        return after(rest)
    if colon and kind == "regex":
        return matching(rest)
    if name not in _NAMED:
        raise InputError(f"there is no extractor {name!r}; there are {', '.join(_NAMED)}, after:MARKER, regex:PATTERN")
    return _NAMED[name]
