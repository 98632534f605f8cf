"""Numbers as people write them."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappy_select.core.time_limit import OutOfTime, time_limit
from cappy_select.core.types import Candidate
from cappy_select.data.judge import mark_in
from cappy_select.text.extractors import extractor, plain
from cappy_select.text.numbers import is_number, number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"minus: {sign}12", "-12") for sign in "-\u2212\ufe63\uff0d\u2010\u2011\u2012\u2013\u2014"),
        ("from 3\u20135", "5"),
        ("from 3 \u20135", "5"),
        ("\u2013 12 apples", "12"),
        ("x\u22125", "5"),
        ("the B-52", "52"),
        ("-$8", "-8"),
        ("$-8", "-8"),
        ("\u2212€ 8", "-8"),
        ("-US$1,200", "-1200"),
        ("profit\n($1,200)\n", "-1200"),
        ("eight dollars ($8)", "8"),
        ("1,234.5", "1234.5"),
        ("1.234,5", "1234.5"),
        ("1.234.567", "1234567"),
        ("1.234", "1.234"),
        ("1 234,5", "1234.5"),
        ("1 234", "1234"),
        ("it is 1 234 567.", "1234567"),
        ("100 200 300", "300"),
        ("1'234'567.5", "1234567.5"),
        ("12,34,567", "1234567"),
        ("$12{,}000$", "12000"),
        (r"12\,000\,000", "12000000"),
        *((f"12{blank}000{blank}000,5", "12000000.5") for blank in "\u00a0\u202f\u2009"),
        ("3,50 €", "3.5"),
        ("€3,50", "3.5"),
        ("(3,14)", "14"),
        ("12,5 %", "12.5"),
        ("50%", "50"),
        ("50 %", "50"),
        ("１２．５", "12.5"),
        ("٣٤٫٥", "34.5"),
        ("१२३", "123"),
        ("7e3", "7000"),
        ("7E-3", "0.007"),
        ("1.5×10^5", "150000"),
        (r"1.5 \times 10^{-5}", "0.000015"),
        ("2 · 10⁻²", "0.02"),
        ("10^6", "1000000"),
        ("1e999999999", "1e999999999"),
        ("1/2", "0.5"),
        ("1 1/2", "1.5"),
        ("2½", "2.5"),
        ("2/6", "1/3"),
        (r"-\frac{2}{6}", "-1/3"),
        ("1/0", "1/0"),
        ("6/7/2024", "2024"),
        (".5", "0.5"),
        ("it is 5.", "5"),
        ("\u22120.0", "0"),
        ("12\u200b34", "1234"),
        ("no number", ""),
    ],
)
def test_the_last_number_in_one_spelling(text, expected):
    assert number(text) == expected


def test_every_digit_counts():
    long = "1" * 60
    assert number(f"{long}.25") == f"{long}.25"
    assert number(f"{long}1") != number(f"{long}2")
    assert number("9" * 100_000) == "9" * 100_000


STYLES = {
    "as Python writes it": lambda whole, rest: f"{whole}{rest and '.' + rest}",
    "commas": lambda whole, rest: f"{whole:,}{rest and '.' + rest}",
    "apostrophes": lambda whole, rest: f"{whole:,}{rest and '.' + rest}".replace(",", "’"),
    "underscores": lambda whole, rest: f"{whole:_}{rest and '.' + rest}",
    "no-break spaces": lambda whole, rest: f"{whole:,}".replace(",", "\u202f") + (rest and "." + rest),
    "LaTeX": lambda whole, rest: f"{whole:,}".replace(",", "{,}") + (rest and "." + rest),
    "full width": lambda whole, rest: f"{whole}{rest and '.' + rest}".translate(
        {ord("0") + digit: chr(0xFF10 + digit) for digit in range(10)} | {ord("."): "．"}
    ),
    "Devanagari": lambda whole, rest: f"{whole:,}{rest and '.' + rest}".translate(
        {ord("0") + digit: chr(0x966 + digit) for digit in range(10)}
    ),
    "scientific": lambda whole, rest: f"{whole}{rest}e-{len(rest)}",
}


@given(
    st.integers(0, 10**40),
    st.from_regex(r"[0-9]{0,30}", fullmatch=True),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from(["", "-", "\u2212"]),
    st.sampled_from(["{}", "It is {}.", "**{}**", "${}", "{} %", "= {}"]),
)
def test_a_number_is_read_back_in_whatever_style_it_is_written(whole, rest, style, sign, around):
    written = STYLES[style](whole, rest)
    said = f"{sign}{around.format(written)}" if around.startswith("$") else around.format(sign + written)
    exact = f"{whole}.{rest}".rstrip("0").rstrip(".") if rest else str(whole)
    nothing = not exact.strip("0.")
    found = number(said)
    assert found == ("0" if nothing else f"{'-' if sign else ''}{exact}")
    assert number(found) == found  # one spelling


@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_two_numbers_are_spelled_alike_when_they_are_equal(first, second):
    assert (number(f" {first}") == number(f" {second}")) == (first == second)
    assert Decimal(number(f" {first}")) == first


odd = st.text(st.sampled_from("0123456789.,'’- −–()$€%eE×^/{}\\ \n\u00a0\u202fxfrac½٣１"), max_size=60)


@settings(max_examples=500)
@given(st.one_of(st.text(), odd))
def test_no_text_makes_it_fail(text):
    assert number(number(text)) == number(text)
    assert isinstance(is_number(text), bool)
    plain(text)
    mark_in(text)
    for name in ("number", "boxed", "line", "text"):
        extractor(name)(Candidate(model="m", message={"content": text}))


HOSTILE = [
    *("1", "1,", "11,", "111,", "1.", "111.", "1 ", "111 ", "1'", "111'", "1{,}", r"1\,", "1e", "1/", "1 1/", "10^"),
    *("-", "- ", "–", "(", "$", "($5", "½", "x10", "1×", r"\frac", r"\frac{1}", ".", "1\u00a0", "111\u202f", "9.0 "),
    "a\u0301",
]


@pytest.mark.slow
def test_time_grows_with_the_length_of_a_text_not_with_its_square():
    code = (
        "from cappy_select.text.extractors import plain; from cappy_select.text.numbers import is_number, number\n"
        "from cappy_select.data.judge import mark_in\n"
        f"for part in {HOSTILE!r}:\n"
        "    for end in ('', '1', '!', '1111', ',5', '.5', ' %'):\n"
        "        text = part * (40_000 // len(part)) + end\n"
        "        number(text), is_number(text), plain(text), mark_in(text)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=150, check=True)  # the square would be hours


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("-$5", "$-5", True),
        ("$5", "5 $", True),
        ("$5", "5", False),
        ("$5", "€5", False),
        ("$x$ is $5$", "$x$ is 5", True),
        ("50 %", "50.0%", True),
        ("50%", "50", False),
        ("\u22125", "-5", True),
        ("\u22125", "5", False),
        ("1 234,50", "1234.5", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("\u200eLi\u00adma\ufe0f", "lima", True),
        ("1.0", "1.0.0", False),
        ("2/3", "0.6666", False),
    ],
)
def test_two_answers_are_one_when_they_read_alike(first, second, same):
    assert (plain(first) == plain(second)) == same


def test_a_boxed_number_and_a_matched_one_are_in_one_spelling_too():
    def found(name, text):
        return extractor(name)(Candidate(model="m", message={"content": text}))

    assert found("boxed", r"\boxed{\u22121{,}000}".replace(r"\u2212", "\u2212")) == "-1000"
    assert found("boxed", r"\boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert found("after:So", "So: \u22125.") == found("regex:So: (.*)", "So: -5.0") == "-5"


def test_a_judges_minus_is_no_mark():
    assert mark_in("\u22128/10") is None
    assert mark_in("８/１０") == 0.8


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0,75", "0.75"), ("about 0,125 m", "0.125"), ("(0,75)", "75"), ("0,5", "5"), ("0,75,3", "3"), ("10,75", "75")],
)
def test_a_comma_behind_a_zero_is_a_decimal_one_where_it_can_be_nothing_else(text, expected):
    assert number(text) == expected


def test_many_numbers_are_read_within_the_time_that_there_is():
    with time_limit(0.05), pytest.raises(OutOfTime):
        number("1 x " * 500_000)
