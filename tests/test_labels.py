from __future__ import annotations

import gzip
import itertools
import json
import math
import pickle
import random
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cappy_select import InputError, MissingExtra
from cappy_select.core.errors import UnscorableWarning
from cappy_select.data import labels as module
from cappy_select.data.labels import LABELS, Label, label_named, rouge_l, rouge_l_batch, rouge_l_unicode
from cappy_select.text.similarity import words

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the parity on real texts needs {DATA}")
quiet = pytest.mark.filterwarnings("ignore::cappy_select.core.errors.UnscorableWarning")

published = RougeScorer(["rougeL"], use_stemmer=True)
texts = st.one_of(
    st.text(max_size=60),
    st.text("aeylstin 19.,'İßﬁK\u0301\u0307\n", max_size=60),
    st.lists(
        st.sampled_from("the tied ties running runs ran generalization generalize yyyy 3,000 don't Straße".split())
    ).map(" ".join),
)
vocabulary_words = [
    "".join(parts)
    for parts in itertools.product(
        ("rel", "condit", "oper", "hop", "tri", "agre", "fl", "troubl", "x", "1"),
        ("", "at", "ion", "al", "y", "i", "e", "ab", "iv"),
        ("", "s", "ed", "ing", "er", "ly", "ness", "ization", "ies"),
    )
]


@pytest.fixture
def small_vocabulary(monkeypatch):
    """Vocabularies of eight words."""
    monkeypatch.setattr(module, "ROOM", 8)
    monkeypatch.setattr(module, "_vocabulary", module._Vocabulary())


def expected(response, references):
    return max(published.score(reference, response)["rougeL"].fmeasure for reference in references)


def generated(number, *, length=40, seed=0):
    rng = random.Random(seed)
    some = [rng.sample(vocabulary_words, 30) for _ in range(20)]

    def text():
        return rng.choice(" ,-\n").join(rng.choices(rng.choice(some), k=rng.randint(0, length)))

    return [(text(), text()) for _ in range(number)]


def recorded(number, *, words=80, seed=0):
    """(response, reference): half are answers with their references, half references of the same task."""

    def rows(path):
        with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def cut(text):
        return " ".join(text.split(" ")[:words])

    rng = random.Random(seed)
    pairs = [
        (cut(answer["response"]), cut(reference))
        for name in ("bbh", "gsm8k", "summeval", "trivia_qa")
        for row in rows(f"candidates/{name}.jsonl.gz")
        for answer in row["candidates"]
        for reference in row["references"]
    ]
    pairs = rng.sample(pairs, min(number // 2, len(pairs)))
    by_task = {}
    for row in rows("t0/heldout.jsonl.gz"):
        by_task.setdefault(row["task"], []).extend([*row["references"], row["instruction"]])
    tasks = list(by_task.values())
    while len(pairs) < number:
        pairs.append(tuple(map(cut, rng.choices(rng.choice(tasks), k=2))))
    return pairs


def differing(pairs):
    found = rouge_l_batch([response for response, _ in pairs], [[reference] for _, reference in pairs])
    return [
        (pair, value, expected(pair[0], [pair[1]]))
        for pair, value in zip(pairs, found, strict=True)
        if value != expected(pair[0], [pair[1]])
    ]


# ---------------------------------------------------------------- Rouge-L as published


@quiet
@settings(max_examples=1000, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=3))
@example("", [""])
@example("İstanbul ﬁnds Straße", ["istanbul finds strasse"])
@example("yyyyyyyys ayyyying", ["yyyyyyyy ayyyy"])
@example("A\u0308rzte \ud800 K", ["arzte k"])
def test_rouge_l_is_the_published_one_to_the_last_digit(response, references):
    assert rouge_l(response, references) == expected(response, references)


@quiet
def test_five_thousand_made_pairs_score_as_published():
    assert differing(generated(5000)) == []


@needs_data
@quiet
@pytest.mark.slow
def test_twenty_thousand_real_pairs_score_as_published():
    pairs = recorded(20_000)
    assert len(pairs) == 20_000
    assert differing(pairs) == []


@pytest.mark.slow
@pytest.mark.long
@needs_data
@quiet
def test_two_hundred_thousand_real_pairs_score_as_published():
    assert differing(recorded(200_000, seed=1)) == []


def test_the_best_reference_counts():
    assert rouge_l("the cat sat", ["a dog", "the cats sitting", "cat"]) == pytest.approx(2 / 3)
    assert rouge_l_batch(["a b", "c"], [["x", "a b"], ["d"]]) == [1.0, 0.0]
    assert rouge_l_batch([], []) == []


def test_without_references_there_is_nothing_to_say():
    for call in (
        lambda: rouge_l("a", []),
        lambda: rouge_l_unicode("a", []),
        lambda: rouge_l_batch(["a", "b"], [["a"], []]),
        *(lambda name=name: label_named(name)(["a"], []) for name in LABELS),
    ):
        with pytest.raises(InputError, match="no reference"):
            call()
    with pytest.raises(InputError, match="2 responses, 1 rows"):
        rouge_l_batch(["a", "b"], [["a"]])
    with pytest.raises(InputError, match="must be a list of texts, got the text 'yes'"):
        rouge_l("yes", "yes")


def test_a_reference_that_rouge_l_cannot_read_is_said_once_a_call():
    with pytest.warns(UnscorableWarning, match="rouge_l_unicode") as caught:
        assert rouge_l_batch(["हिन्दी", "ok", "汉字"], [["हिन्दी"], ["ok"], ["汉字", "ok"]]) == [0.0, 1.0, 0.0]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UnscorableWarning):
        assert label_named("rouge_l")(["a", "b"], ["?!"]) == [0.0, 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rouge_l("हिन्दी", ["hindi"]) == 0.0


@quiet
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), max_size=8))
@settings(deadline=None)
def test_a_full_vocabulary_starts_anew_and_changes_no_score(rows):
    responses, references = [response for response, _ in rows], [row for _, row in rows]
    found = rouge_l_batch(responses, references)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROOM", 8)
        patch.setattr(module, "_vocabulary", module._Vocabulary())
        assert rouge_l_batch(responses, references) == found
        assert [rouge_l(*row) for row in rows] == found
        assert len(module._vocabulary) <= 8


def test_a_vocabulary_turns_over_and_a_row_with_more_words_than_it_holds_still_scores(small_vocabulary):
    first = module._vocabulary
    pairs = generated(300, length=12)
    assert any(len(set(f"{response} {reference}".split())) > 8 for response, reference in pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnscorableWarning)
        assert differing(pairs) == []
    assert module._vocabulary is not first
    assert len(module._vocabulary) <= 8


def test_a_long_token_takes_the_room_of_many_words(small_vocabulary):
    blob = "q" * 10_000
    assert rouge_l(f"{blob} a", [f"b {blob}"]) == 0.5
    assert blob.encode() not in module._vocabulary


def test_characters_beyond_the_basic_plane_and_surrogates_stand_for_words(monkeypatch):
    monkeypatch.setattr(module, "_vocabulary", module._Vocabulary())
    for start in (0xD7F0, 0xDFF0, 0xFFF0):
        module._vocabulary._codes = itertools.count(start)
        first = " ".join(f"w{start}n{number}" for number in range(40))
        second = " ".join(f"w{start}n{number}" for number in range(0, 40, 2))
        assert rouge_l(first, [second]) == expected(first, [second])


def test_eight_threads_score_as_one(small_vocabulary):
    pairs = generated(400, length=6)
    responses, references = [pair[0] for pair in pairs], [[pair[1] or "a"] for pair in pairs]
    alone = [expected(*row) for row in zip(responses, references, strict=True)]
    orders = [random.Random(seed).sample(range(len(pairs)), len(pairs)) for seed in range(8)]

    def score(order):
        if order[0] % 2:
            return [rouge_l(responses[place], references[place]) for place in order]
        return rouge_l_batch([responses[place] for place in order], [references[place] for place in order])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(score, orders))
    finally:
        sys.setswitchinterval(interval)
    assert results == [[alone[place] for place in order] for order in orders]


def test_equal_texts_are_read_once_a_batch(monkeypatch):
    read = []
    monkeypatch.setattr(module, "_vocabulary", module._Vocabulary())  # no text of another test is kept
    monkeypatch.setattr(module, "_tokens", lambda text, tokens=module._tokens: (read.append(text), tokens(text))[1])
    long = "an unusual reference " * 1000
    rouge_l_batch(["an unusual answer", "b", "b"], [[long, "c"], [long], [long]])
    assert sorted(read) == sorted([long, "an unusual answer", "b", "c"])


def test_it_is_at_least_ten_times_as_fast_as_rouge_score():
    pairs = generated(300, length=60, seed=3)

    def seconds(score):
        started = time.process_time()
        for response, reference in pairs:
            score(response, reference or "a")
        return time.process_time() - started

    ours = min(seconds(lambda response, reference: rouge_l(response, [reference])) for _ in range(3))
    assert seconds(lambda response, reference: published.score(reference, response)) > 10 * ours


# ---------------------------------------------------------------- any script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),  # vowel signs are no ends of words
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("Cafe\u0301s İstanbul", ["cafés", "i̇stanbul"]),
        ("使用Python语言2024年。", ["使", "用", "python", "语", "言", "2024", "年"]),
        ("カタカナとひらがな", list("カタカナとひらがな")),
        ("か\u3099", ["が"]),
        ("ที่นี่ ๑๒๓", ["ที่", "นี่", "๑๒๓"]),
        ("ລາວ", list("ລາວ")),
        ("ភាសា", ["ភា", "សា"]),
        ("မာစာ", ["မာ", "စာ"]),
        ("می\u200cخواهم so\u00adft", ["میخواهم", "soft"]),
        ("1\ufe0f\u20e3 ❤\ufe0f \u0301 ok", ["1", "ok"]),
        ("snake_case don't", ["snake_case", "don", "t"]),
        ("", []),
    ],
)
def test_words_of_any_script(text, expected):
    assert words(text) == expected


def test_rouge_l_of_any_script_sees_what_is_alike():
    assert rouge_l_unicode("नदी पेरू में है", ["नदी पेरू में बहती है"]) == pytest.approx(8 / 9)
    assert rouge_l_unicode("亚马逊河很长", ["尼罗河", "亚马逊河长"]) == pytest.approx(10 / 11)
    assert rouge_l_unicode("कि", ["की"]) == 0.0
    assert rouge_l_unicode("cafe\u0301", ["Café"]) == 1.0


@given(st.text(max_size=40))
def test_a_text_is_like_itself_in_any_script(text):
    assert rouge_l_unicode(text, [text]) == bool(words(text))


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_ascii_words_are_the_same_on_both_ways(text):
    assert words(f"{text} é") == [*words(text), "é"]


# ---------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("name", "response", "references", "expected"),
    [
        ("rouge_l", "rivers ran", ["a river runs"], pytest.approx(0.4)),
        ("rouge_l_unicode", "rivers run", ["rivers ran", "river run run"], 0.5),
        ("exact", "The Amazon!", ["Nile", "amazon"], 1.0),
        ("exact", "The Amazon river", ["Amazon"], 0.0),
        ("exact", "(A)", ["A"], 1.0),
        ("exact", "the", ["A"], 0.0),
        ("exact", "", ["A"], 0.0),
        ("exact", "+", ["-"], 0.0),
        ("exact", "1,000.0", ["1000"], 1.0),
        ("token_f1", "the river Amazon", ["Nile", "Amazon River in Peru"], pytest.approx(2 / 3)),
        ("token_f1", "no no no", ["no"], 0.5),
        ("token_f1", "A", ["A"], 1.0),
        ("token_f1", "", ["x"], 0.0),
        ("number", "3 + 4 = 7.0", ["#### 6", "#### 7"], 1.0),
        ("number", "7 is more than 6", ["7"], 0.0),
        ("number", "none", ["none"], 0.0),
        ("chrf", "the Amazon", ["the Amazon"], 1.0),
        ("bleu", "the river runs through Peru", ["x", "the river runs through Peru"], 1.0),
        ("bleu", "", ["a b"], 0.0),
        ("chrf", "", ["a b"], 0.0),
    ],
)
def test_every_label_says_how_right_an_answer_is(name, response, references, expected):
    label = label_named(name)
    assert isinstance(label, Label)
    assert label.name == name
    assert label(["zzz", response], references)[1] == expected


@quiet
@settings(deadline=None)
@given(st.lists(texts, max_size=3), st.lists(texts, min_size=1, max_size=3))
def test_every_label_gives_one_value_in_0_to_1_a_response(responses, references):
    for name in LABELS:
        values = label_named(name)(responses, references)
        assert len(values) == len(responses)
        assert all(type(value) is float and 0 <= value <= 1 for value in values)


def test_chrf_and_bleu_are_sacrebleus():
    response, references = "the cat sat on a mat", ["a cat sat on the mat", "the cats sat on mats"]
    chrf = [CHRF().sentence_score(response, [reference]).score / 100 for reference in references]
    assert label_named("chrf")([response], references) == [max(chrf)]
    bleu = BLEU(effective_order=True).sentence_score(response, references).score / 100
    assert label_named("bleu")([response], references) == [bleu]


def test_a_label_goes_to_another_process_as_its_name():
    for name in (*LABELS, "call:test_labels:half"):
        label = pickle.loads(pickle.dumps(label_named(name)))
        assert label.name == name
        assert label(["half"], ["half"]) == [1.0 if name in LABELS and name != "number" else 0.5 * (name not in LABELS)]
    assert len(pickle.dumps(label_named("rouge_l"))) < 100


def half(response, references):
    return 0.5 if response in references else 0


VALUES = {
    "nan": math.nan, "inf": math.inf, "less": -0.1, "more": 1.5, "none": None, "text": "1", "list": [1.0],
    "yes": True, "int": 1, "numpy": np.float32(0.25),
}  # fmt: skip


def give(response, references):
    return VALUES[response]


def test_a_function_of_ones_own_gives_a_number_in_0_to_1():
    label = label_named("call:test_labels:give")
    assert label(["yes", "int", "numpy"], ["r"]) == [1.0, 1.0, 0.25]
    for response in set(VALUES) - {"yes", "int", "numpy"}:
        with pytest.raises(
            InputError, match=r"call:test_labels:give must return a finite number in \[0, 1\]"
        ) as raised:
            label([response], ["r"])
        assert repr(VALUES[response]) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rouge", "there is no label 'rouge'; there are rouge_l, rouge_l_unicode, exact"),
        ("rouge_l:x", "there is no label"),
        ("", "there is no label"),
        ("call:", "is call:package.module:function"),
        ("call:half", "is call:package.module:function"),
        ("call:no_such_module:half", "call:no_such_module:half: ModuleNotFoundError.*PYTHONPATH"),
        ("call:.relative:half", "call:.relative:half: TypeError"),
        ("call:test_labels:no_such", "AttributeError.*no_such"),
        ("call:test_labels:VALUES", "is no function but {'nan'"),
        ("call:broken_module:f", "RuntimeError: broken on import"),
    ],
)
def test_a_label_that_cannot_be_had_says_why(name, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('broken on import')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        label_named(name)


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_without_sacrebleu_its_labels_name_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(MissingExtra, match=r"the chrF and BLEU labels.*'sacrebleu'.*cappy-select\[data\]"):
        label_named(name)
    assert label_named("exact")(["a"], ["a"]) == [1.0]
