"""The thinking that a model writes into its answer, and the answer behind it.

Reasoning models put `<think> ... </think>` (or `<thinking>`) before what they answer; where the chat template opens the
block, only its end is in the text. Scores, votes and labels go by the answer; what the caller gets has all of it.
"""

from __future__ import annotations

import re

from cappy_select.core.characters import is_blank

_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_QUOTES = "`'\""  # a tag between them is spoken of


def behind_thinking(text: str) -> str:
    """The answer without its blocks of thinking; empty when nothing comes before or after one that never ends.

    Args:
        text: What a model wrote, perhaps with `<think> ... </think>` or `<thinking> ... </thinking>` in it. A tag
            between quotes or backticks is spoken of and opens nothing; all before an end without a beginning is
            thinking.

    Returns:
        The rest, without white space at its beginning; the text as it is where there is no such block.
    """
    answer: list[str] = []
    place, opened = 0, -1
    for tag in _TAG.finditer(text):
        around = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
        if all(around) and all(mark in _QUOTES for mark in around):
            continue
        if not tag[1]:
            opened = tag.start() if opened < 0 else opened
            continue
        # An end without a beginning: all before it was thinking.
        if opened >= 0:
            answer.append(text[place:opened])
        else:
            answer.clear()
        place, opened = tag.end(), -1
    if not place and opened < 0:
        return text
    rest = text[place:]
    if opened >= 0 and is_blank("".join([*answer, text[place:opened]])):
        rest = ""  # it never ended
    return "".join([*answer, rest]).lstrip()
