"""How right an answer is: a number in [0, 1] from a response and its references, by one of several measures.

Rouge-L, the paper's, is computed for every sample and every pair of answers to different instructions, so it is made
fast. A text becomes a string with one character a word, the same for all words of one stem, and rapidfuzz compares
two such strings. Which word has which character is a vocabulary's matter; strings of two vocabularies say nothing
about each other.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from numbers import Real
from operator import attrgetter
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from cappy_select.core.errors import InputError, MissingExtra, UnscorableWarning
from cappy_select.text import similarity
from cappy_select.text.extractors import plain
from cappy_select.text.numbers import number
from cappy_select.text.stemmer import stem

ROOM = 300_000  # a vocabulary's, in words of ordinary length: about 100 MB; a new one is refilled in seconds
KEPT_TEXTS = 1024
KEPT_CHARACTERS = 4000  # texts longer than this are encoded anew in the next call

_ORDINARY = 64  # characters; a longer word takes more room
_BLANKED = bytes(byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789" else 0x20 for byte in range(256))

Text = TypeVar("Text")
Measure = Callable[[Sequence[str], Sequence[str]], list[float]]


@runtime_checkable
class Label(Protocol):
    """Says how right answers are. `name` is what `label_named` makes it of, in another process too."""

    @property
    def name(self) -> str: ...

    def __call__(self, responses: Sequence[str], references: Sequence[str]) -> list[float]:
        """A value in [0, 1] for each of the answers to one instruction, against its references."""
        ...


# ---------------------------------------------------------------- Rouge-L as published


def rouge_l(response: str, references: Sequence[str]) -> float:
    """Rouge-L F1 with Porter's stemmer (Lin 2004), in [0, 1]: that of the reference it is highest against.

    To the last digit what `rouge_score.RougeScorer(["rougeL"], use_stemmer=True)` gives. Words are runs of a-z and 0-9
    after lowering, as there; warns `UnscorableWarning` when a reference has none.

    Args:
        response: The answer.
        references: Right answers, at least one.

    Returns:
        A value in [0, 1].

    Raises:
        InputError: there are no references.
    """
    return _rouge_l_rows([response], [references])[0]


def rouge_l_batch(responses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """`rouge_l` of many responses, each with its own references; of equal texts one is read.

    Warns `UnscorableWarning` once a call at most.

    Args:
        responses: [n]
        references: [n] rows of one or more references.

    Returns:
        [n] values in [0, 1].

    Raises:
        InputError: the two differ in length, or a row has no references.
    """
    if len(responses) != len(references):
        raise InputError(f"every response needs its references: {len(responses)} responses, {len(references)} rows")
    return _rouge_l_rows(responses, references)


def _rouge_l_rows(responses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    for row in references:
        _require(row)
    scores = []
    unscorable = False
    for own, *others in _encoded((response, *row) for response, row in zip(responses, references, strict=True)):
        scores.append(max(_f1(own, other) for other in others))
        unscorable = unscorable or not all(others)
    if unscorable:
        _warn_unscorable(
            "a word of a-z and 0-9, which is all that Rouge-L counts ('rouge_l_unicode' counts any script)"
        )
    return scores


def _warn_unscorable(what: str = "what this label compares") -> None:
    # Without the reference: one text, which Python shows once.
    warnings.warn(f"a reference has not {what}: every response is 0 against it", UnscorableWarning, stacklevel=4)


def _f1(response: Sequence[object], reference: Sequence[object]) -> float:
    from rapidfuzz.distance import LCSseq  # 30 ms that `cappy rank` need not wait for

    common = LCSseq.similarity(response, reference)
    return _harmonic_mean(common / len(response), common / len(reference)) if common else 0.0


def _harmonic_mean(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)  # this order of operations gives rouge_score's last digit


class _NoRoom(Exception):
    """A vocabulary is full."""


class _Vocabulary(dict[bytes, str]):
    """Words, each with the character of its stem. Threads may share one: the operations on it are atomic.

    A lock would do too, but a fork while another thread held it would leave the child waiting for ever.
    """

    def __init__(self) -> None:
        self._characters: dict[str, str] = {}  # of stems
        self._codes = itertools.count()  # surrogates are characters too: nothing writes these strings anywhere
        self._room = ROOM
        self._encode_kept = lru_cache(KEPT_TEXTS)(self._encode)

    def encode(self, text: str) -> str:
        """One character a word. Raises _NoRoom."""
        return self._encode_kept(text) if len(text) <= KEPT_CHARACTERS else self._encode(text)

    def _encode(self, text: str) -> str:
        return "".join(map(self.__getitem__, _tokens(text)))

    def __missing__(self, word: bytes) -> str:
        self._room -= 1 + len(word) // _ORDINARY
        if self._room < 0:
            raise _NoRoom
        root = _root(word)
        character = self._characters.get(root) or self._characters.setdefault(root, chr(next(self._codes)))
        self[word] = character
        return character


_vocabulary = _Vocabulary()


def _renewed(full: _Vocabulary) -> _Vocabulary:
    global _vocabulary
    if _vocabulary is full:  # no other thread was earlier
        _vocabulary = _Vocabulary()
    return _vocabulary


def _encoded(rows: Iterable[Sequence[str]]) -> Iterator[list[Sequence[object]]]:
    """Each row's texts as sequences that can be compared with one another."""
    vocabulary, known = _vocabulary, dict[str, str]()
    for texts in rows:
        try:
            for text in texts:
                if text not in known:
                    known[text] = vocabulary.encode(text)
        except _NoRoom:
            vocabulary, known = _renewed(vocabulary), {}
            yield _numbered(texts)  # not by the new one, in which a very long row may find no room either
        else:
            yield [known[text] for text in texts]


def _numbered(texts: Sequence[str]) -> list[Sequence[object]]:
    numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    return [[numbers[_root(word)] for word in _tokens(text)] for text in texts]


def _tokens(text: str) -> list[bytes]:
    return text.lower().encode("ascii", "replace").translate(_BLANKED).split()


def _root(word: bytes) -> str:
    return stem(word.decode()) if len(word) > 3 else word.decode()


# ---------------------------------------------------------------- the other measures


def rouge_l_unicode(response: str, references: Sequence[str]) -> float:
    """Rouge-L F1 over words of any script (`similarity.words`), without a stemmer; the highest over the references.

    Where words have no blanks between them (Han, kana, Thai, ...) it goes by characters. Not for comparison with
    published figures. Raises InputError without references.
    """
    return _rouge_l_unicode([response], references)[0]


def _best(
    responses: Sequence[str],
    references: Sequence[str],
    *,
    read: Callable[[str], Text],
    compare: Callable[[Text, Text], float],
) -> list[float]:
    """Each response against the reference it is best against; every text is read once."""
    _require(references)
    goals = [read(reference) for reference in references]
    if not all(goals):
        _warn_unscorable()
    return [max(compare(own, goal) for goal in goals) for own in map(read, responses)]


def _bare(text: str) -> str:
    """`plain`, unless nothing is left of it."""
    return plain(text) or text.strip()


def _token_f1(first: list[str], second: list[str]) -> float:
    """F1 of two bags of words; two empty ones are equal (SQuAD's evaluate-v2.0)."""
    if not first or not second:
        return float(first == second)
    common = (Counter(first) & Counter(second)).total()
    return _harmonic_mean(common / len(first), common / len(second)) if common else 0.0


_rouge_l_unicode = partial(_best, read=similarity.words, compare=similarity.rouge_l)
_MEASURES: dict[str, Measure] = {
    "rouge_l": lambda responses, references: _rouge_l_rows(responses, [references] * len(responses)),
    "rouge_l_unicode": _rouge_l_unicode,
    "exact": partial(_best, read=_bare, compare=lambda first, second: float(first == second)),
    "token_f1": partial(_best, read=lambda text: _bare(text).split(), compare=_token_f1),
    "number": partial(_best, read=number, compare=lambda first, second: float(first == second != "")),
}


def _sacrebleu(name: str) -> Measure:
    """Sentence chrF against the best reference, or sentence BLEU against all, with the effective order."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise MissingExtra("data", "the chrF and BLEU labels", "sacrebleu") from error
    metric = CHRF() if name == "chrf" else BLEU(effective_order=True)

    def measure(responses: Sequence[str], references: Sequence[str]) -> list[float]:
        _require(references)
        # Equal sentences have a BLEU of 100.00000000000004.
        return [min(1.0, metric.sentence_score(response, list(references)).score / 100) for response in responses]

    return measure


# ---------------------------------------------------------------- by name


LABELS = (*_MEASURES, "chrf", "bleu")


def label_named(name: str) -> Label:
    """A label by its name, one of `LABELS` or `call:package.module:function`.

    `rouge_l`: see there; `rouge_l_unicode`: likewise. `exact`: 1 when equal but for case, articles and punctuation.
    `token_f1`: SQuAD's F1 over words in any order. `number`: 1 when the last number is a reference's last number.
    `chrf`, `bleu`: sacrebleu's on sentences, as fractions of 1. `call:`: a function (response, references) of one's
    own that returns a number in [0, 1]. All but BLEU take the reference that a response is best against.

    A label can be pickled: it goes as its name, so a function of one's own must be importable where it arrives.

    Raises InputError for an unknown name or a function that can't be had, MissingExtra without sacrebleu.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "call":
        return _Named(name, _own(rest))
    if name not in LABELS:
        raise InputError(f"there is no label {name!r}; there are {', '.join(LABELS)}, call:package.module:function")
    return _Named(name, _MEASURES[name] if name in _MEASURES else _sacrebleu(name))


def label_source(name: str) -> dict[str, str]:
    """What a label is made of, so that pairs made with another version of a function are told apart."""
    if not name.startswith("call:"):
        return {"name": name}
    module = importlib.import_module(name.split(":")[1])
    content = Path(module.__file__).read_bytes() if module.__file__ else b""
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest()}


class _Named:
    """A measure under its name."""

    def __init__(self, name: str, measure: Measure) -> None:
        self.name = name
        self._measure = measure

    def __call__(self, responses: Sequence[str], references: Sequence[str]) -> list[float]:
        _require(references)
        return self._measure(responses, references)

    def __reduce__(self) -> tuple[Callable[[str], Label], tuple[str]]:
        return label_named, (self.name,)

    def __repr__(self) -> str:
        return f"label_named({self.name!r})"


def _own(place: str) -> Measure:
    module, _, path = place.partition(":")
    if not module or not path:
        raise InputError(f"a label of one's own is call:package.module:function, got 'call:{place}'")
    try:
        function = attrgetter(path)(importlib.import_module(module))
    except Exception as error:  # a module may fail in any way while it is imported
        raise InputError(
            f"call:{place}: {type(error).__name__}: {error}; the module must be installed or on PYTHONPATH"
        ) from error
    if not callable(function):
        raise InputError(f"call:{place} is no function but {function!r:.80}")

    def measured(response: str, references: Sequence[str]) -> float:
        try:
            return _checked(function(response, references), place)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"call:{place} failed on {response!r:.80}: {type(error).__name__}: {error}") from error

    return lambda responses, references: [measured(response, references) for response in responses]


def _checked(value: object, place: str) -> float:
    found = float(value) if isinstance(value, Real) else math.nan
    if not 0 <= found <= 1:
        raise InputError(f"call:{place} must return a finite number in [0, 1], it returned {value!r:.80}")
    return found


def _require(references: Sequence[str]) -> None:
    if isinstance(references, str):
        raise InputError(f"references must be a list of texts, got the text {references!r:.80}")
    if not references:
        raise InputError("there is no reference to compare a response with")
