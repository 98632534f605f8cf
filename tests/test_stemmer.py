from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.stem import PorterStemmer

from cappy_select.text import stemmer as module
from cappy_select.text.stemmer import stem

nltk_stem = PorterStemmer().stem

ROOTS = """
    a b e y x 1 42 ab by ye yy sky try cry play toy syzyg hop hopp tann fall hiss fizz fail fil plaster motor conflat
    troubl siz agr f fe feed re rel relat condit ration valenc hesit digit conform radic differ vil analog vietnam
    predic oper feudal decis hope call form sensit tripl electr good reviv allow infer airlin gyroscop adjust defens
    irrit replac depend adopt homolog commun activ angular effect bowdl prob rat ceas control roll geo theo archaeo
    philo d l t st str oo ee ay ey oy eye w wx box snow tray b0x 3d yyyy ayyy trouble oat tree private orrery nn ll ss
""".split()
ENDINGS = [
    *("", "s", "es", "ss", "sses", "ies", "ied", "eed", "ed", "ing", "at", "bl", "iz", "y", "e", "ll", "l", "logi"),
    *("ion", "sion", "tion", "logy", "ly", "lly", "ally", "ably", "ibly", "fully", "ility", "ity", "ency", "ancy"),
    *(suffix for suffix, _ in (*module._STEP_2, *module._STEP_3, *module._STEP_4)),
]


def test_the_papers_examples():
    pairs = (
        "caresses caress ponies poni ties tie cats cat feed feed agreed agre plastered plaster sing sing happy happi"
    )
    pairs += " relational relat conditional condit digitizer digit hopefulness hope electriciti electr adoption adopt"
    pairs += " probate probat rate rate cease ceas controll control roll roll hopping hop falling fall filing file"
    examples = pairs.split()
    assert [stem(word) for word in examples[::2]] == examples[1::2]


def test_words_built_of_the_rules_suffixes_have_nltks_stems():
    words = {"".join(parts) for parts in itertools.product(ROOTS[::7], ENDINGS, ENDINGS)}
    words |= {"".join(parts) for parts in itertools.product(ROOTS, ENDINGS)} | set(PorterStemmer().pool)
    assert len(words) > 50_000
    assert [word for word in words if stem(word) != nltk_stem(word)] == []


@settings(max_examples=2000)
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1) | st.text("aeylsti1", min_size=1))
@example("yyyyyyyys")
@example("aied")
def test_any_word_has_nltks_stem(word):
    assert stem(word) == nltk_stem(word)


@pytest.mark.parametrize("word", ["y" * 300_000, "ay" * 150_000 + "ing", "b" * 300_000 + "ational", "9" * 300_000])
def test_a_long_token_takes_no_longer_than_its_length(word):
    started = time.process_time()
    assert stem(word)
    assert time.process_time() - started < 2  # were it quadratic: hours


def test_the_stemmer_needs_no_nltk():
    code = (
        "import sys, cappy_select.data.labels as labels; labels.rouge_l('a b', ['b']); sys.exit('nltk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
