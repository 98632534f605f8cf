"""Porter's stemmer, with the deviations that NLTK's `PorterStemmer` has by default: what published Rouge figures use.

M. F. Porter, "An algorithm for suffix stripping", Program 14.3 (1980), https://tartarus.org/martin/PorterStemmer/.
Written from the paper, because importing nltk takes seconds and 200 MB in every process that scores.

The one idea: a word has a form, one `c` (consonant) or `v` (vowel) a letter, and its measure is the number of times
a `c` follows a `v`. Rules take a suffix off where the measure of what is left is large enough.
"""

from __future__ import annotations

from collections.abc import Iterable

_IRREGULAR = {
    "skies": "sky", "sky": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
    "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
    "cannings": "canning", "canning": "canning", "howe": "howe",
    "proceed": "proceed", "exceed": "exceed", "succeed": "succeed",
}  # fmt: skip

Rules = tuple[tuple[str, str], ...]  # (suffix, what stands there instead): the first that fits decides

_STEP_2: Rules = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful"),
)  # fmt: skip
_STEP_3: Rules = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
_STEP_4: Rules = tuple(
    (suffix, "")
    for suffix in "al ance ence er ic able ible ant ement ment ent ou ism ate iti ous ive ize".split()  # noqa: SIM905
)

_LETTERS = str.maketrans(
    {letter: "v" if letter in "aeiou" else "c" for letter in "abcdefghijklmnopqrstuvwxz0123456789"}
)


def stem(word: str) -> str:
    """The stem of a lower-case word of a-z and 0-9, in time linear in its length.

    >>> stem("relational")
    'relat'
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _step_1c(_step_1b(_step_1a(word)))
    word = _replaced(_step_2(word), _STEP_3, above=0)
    return _step_5b(_step_5a(_step_4(word)))


def _form(word: str) -> str:
    form = word.translate(_LETTERS)
    if "y" not in form:
        return form
    kinds: list[str] = []
    for kind in form:  # a y is a vowel after a consonant, another y's kind included
        kinds.append(("v" if kinds and kinds[-1] == "c" else "c") if kind == "y" else kind)
    return "".join(kinds)


def _measure(word: str) -> int:
    return _form(word).count("vc")


def _short(word: str) -> bool:
    """Ends in consonant, vowel, consonant (not w, x, y), or is a vowel and a consonant: it may have had an e."""
    form = _form(word)
    return form == "vc" or (form.endswith("cvc") and word[-1] not in "wxy")


def _replaced(word: str, rules: Iterable[tuple[str, str]], *, above: int) -> str:
    """By the first rule whose suffix the word has, if the measure of what is left is `above` that."""
    for suffix, replacement in rules:
        if word.endswith(suffix):
            root = word[: -len(suffix)]
            return root + replacement if _measure(root) > above else word
    return word


def _step_1a(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]  # ties -> tie, ponies -> poni
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _step_1b(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    root = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    form = _form(root)
    if root == word or "v" not in form:
        return word
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if form.endswith("c") and root[-1:] == root[-2:-1]:
        return root if root[-1] in "lsz" else root[:-1]
    return root + "e" if form.count("vc") == 1 and _short(root) else root


def _step_1c(word: str) -> str:
    if word.endswith("y") and len(word) > 2 and _form(word[:-1]).endswith("c"):
        return word[:-1] + "i"
    return word


def _step_2(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        word = word[:-2]  # and on, so that -ationalli becomes -ate
    if word.endswith("logi"):  # the l counts as the stem's, so that geologi is cut as archaeologi is
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _STEP_2, above=0)


def _step_4(word: str) -> str:
    if word.endswith("ion"):
        return word[:-3] if word.endswith(("sion", "tion")) and _measure(word[:-3]) > 1 else word
    return _replaced(word, _STEP_4, above=1)


def _step_5a(word: str) -> str:
    if not word.endswith("e"):
        return word
    measure = _measure(word[:-1])
    return word[:-1] if measure > 1 or (measure == 1 and not _short(word[:-1])) else word


def _step_5b(word: str) -> str:
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
