"""What is shown is harmless: no text of a model, a server or a file commands a terminal, or looks like another.

A control character moves the cursor, sets a title or fills the clipboard; a bidirectional control turns what follows
round; others can't be seen. All of them are shown as JSON would escape them (`\\u001b`), so that JSON stays JSON.
"""

from __future__ import annotations

import re
from typing import Any

# C0 but tab and newline, DEL, C1; what sets directions, separates lines or is not seen (joiners within emoji and words
# are left, and so are the soft hyphen and signs that stand before numbers); tags; lone surrogates.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def harmless(text: str) -> str:
    """A text for a terminal or a report: each control character and each one that forges is its escape."""
    return _HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


class HarmlessStream:
    """A text stream that writes what is harmless. `raw` is the stream itself, for bars and colours of our own."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write it. A carriage return in front is how others' progress bars begin a line anew."""
        bar = text.startswith("\r") and not text.startswith("\r\n")
        self.raw.write("\r" + harmless(text[1:]) if bar else harmless(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write them all."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in {"buffer", "detach"}:  # the ways round
            raise AttributeError(name)
        return getattr(self.raw, name)


def raw(stream: Any) -> Any:
    """The stream behind a HarmlessStream; any other as it is."""
    return stream.raw if isinstance(stream, HarmlessStream) else stream
