"""What a `tokenizer.json` may do to a text: nothing that takes memory or time beyond all proportion to it.

Of a bundle from elsewhere it is a program as well: forty replacements of `a` by `aa` make 2**40 of one letter, and a
regex of its own can backtrack for ever, both in native code that nothing can stop. So only steps that published
tokenizers take are allowed, what they can make of a text is bounded before the file is loaded, and their regexes must
be ones that are known.
"""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from collections.abc import Iterator, Set
from typing import Any

_MOST_GROWTH = 32  # characters of one, besides what Unicode's own forms make (18 of one ligature, at most)
_MOST_WORD = 1000  # characters of a word that WordPiece looks up: its time grows with their square
_MOST_PIECE = 128  # characters of a piece of Unigram, whose time grows with it; sentencepiece makes them of 16 at most
_MOST_PARTS = 64  # steps of one kind, parts of a pair's template

_NORMALIZERS = {
    "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
    "Replace", "Sequence", "Strip", "StripAccents",
}  # fmt: skip
_PRE_TOKENIZERS = {
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence", "Split",
    "UnicodeScripts", "Whitespace", "WhitespaceSplit",
}  # fmt: skip
_POST_PROCESSORS = {"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"}
_DECODERS = {  # never used here, but loaded
    "BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece",
}  # fmt: skip
_MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_REGEXES = frozenset(
    {
        r" {2,}", r"\s{2,}", r"\s+", r" +", r"\n+", r"\d+", r"\d", r"\p{N}+", r"\p{N}", r"\p{N}{1,3}", r"\p{L}+",
        r"[\r\n]", r"\s", r"[ \t]+", r"\r\n|\r|\n",
        r"\s{2,}|[\n\r\t]",  # DeBERTa-v2 and v3, as transformers 5 makes them
        # GPT-2 and those after it
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    }
)  # fmt: skip


class Refused(ValueError):
    """The tokenizer does what it must not; the message says what."""


def checked_tokenizer(content: bytes) -> str:
    """A `tokenizer.json` as a scorer may load it, written anew: so another parser can't find in it what was not seen.

    Raises Refused when it is none that a scorer may load.
    """
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(f"it is not JSON: {str(error)[:120]}") from error
    if not isinstance(read, dict):
        raise Refused("it is not an object")
    growth = 1.0
    for step in _steps(read.get("normalizer"), "normalizers", _NORMALIZERS):
        growth *= _growth(step)
        if not growth <= _MOST_GROWTH:
            raise Refused(f"its normalizer can make a text more than {_MOST_GROWTH} times as long")
    for part, inner, known in (
        ("pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS),
        ("post_processor", "processors", _POST_PROCESSORS),
        ("decoder", "decoders", _DECODERS),
    ):
        for step in _steps(read.get(part), inner, known):
            _pattern(step)
            if any(isinstance(given, (list, dict)) and len(given) > _MOST_PARTS for given in step.values()):
                raise Refused(f"its {step['type']} has more than {_MOST_PARTS} parts")
    _check_model(read.get("model"))
    return json.dumps(read, separators=(",", ":"))


def _steps(given: Any, inner: str, known: Set[str], depth: int = 0) -> Iterator[dict[str, Any]]:
    """The steps one after another, sequences taken apart."""
    if given is None:
        return
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise Refused(f"it has a step of the type {kind!r:.60}, known here are {', '.join(sorted(known))}")
    if kind != "Sequence":
        yield given
        return
    parts = given.get(inner)
    if not isinstance(parts, list) or len(parts) > _MOST_PARTS or depth > 3:
        raise Refused(f"its sequence of {inner} is none, or longer than {_MOST_PARTS}")
    for part in parts:
        yield from _steps(part, inner, known, depth + 1)


def _growth(step: dict[str, Any]) -> float:
    """How many characters one can become.

    What is put in counts with what Unicode's forms make of it. What they make of the text itself is not counted.
    """
    if step["type"] == "Replace":
        return max(1.0, _longest_form(str(step.get("content", ""))) / _pattern(step))
    if step["type"] == "Prepend":
        return max(1.0, float(_longest_form(str(step.get("prepend", "")))))
    if step["type"] == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    return 1.0


def _longest_form(text: str) -> int:
    """Characters of a text in that of Unicode's forms in which it is longest, in lower case or not."""
    if len(text) > _MOST_WORD:  # too long as it is
        return len(text)
    return max(len(unicodedata.normalize("NFKD", each)) for each in (text, text.lower()))


def _pattern(step: dict[str, Any]) -> int:
    """Characters that a step's pattern matches at least, 1 without any. A regex must be a known one."""
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and set(pattern) == {"Regex"}:
        if pattern["Regex"] not in _REGEXES:
            raise Refused(f"it has a regex of its own, which may never end: {pattern['Regex']!r:.80}")
        return 1
    if isinstance(pattern, dict) and set(pattern) == {"String"} and isinstance(pattern["String"], str):
        if not pattern["String"]:
            raise Refused("it replaces the empty text")
        return len(pattern["String"])
    if pattern is not None and step["type"] in ("Replace", "Split"):
        raise Refused(f"it has a pattern that is none: {pattern!r:.60}")
    return 1


def _longest_replacement(charsmap: Any) -> float:
    """Of sentencepiece's table: four bytes that say how long its trie is, the trie, texts that end with a zero."""
    try:
        table = base64.b64decode(charsmap, validate=True)
    except (ValueError, TypeError) as error:
        raise Refused("its precompiled characters are no table") from error
    start = 4 + int.from_bytes(table[:4], "little")
    if len(table) < 4 or start > len(table):
        return math.inf
    texts = table[start:].split(b"\0")
    return max(1.0, *(_longest_form(text.decode("utf-8", "replace")) for text in texts)) if texts else 1.0


def _check_model(model: Any) -> None:
    if not isinstance(model, dict) or model.get("type", "BPE") not in _MODELS:  # files of 2020 name no type
        raise Refused(f"its model is none of {', '.join(sorted(_MODELS))}")
    if model.get("dropout"):
        raise Refused("its model drops merges at random: a text would not always have the same tokens")
    pieces = model.get("vocab")
    if model.get("type") == "Unigram" and isinstance(pieces, list):
        long = max((len(str(piece[0])) for piece in pieces if isinstance(piece, list) and piece), default=0)
        if long > _MOST_PIECE:
            raise Refused(f"its pieces may have {long} characters, allowed are {_MOST_PIECE}")
    longest = model.get("max_input_chars_per_word", 100)
    if not (isinstance(longest, int) and longest <= _MOST_WORD):
        raise Refused(f"its words may have {longest!r:.40} characters, allowed are {_MOST_WORD}")
