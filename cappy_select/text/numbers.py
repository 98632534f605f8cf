r"""Numbers as people write them, in one spelling.

What is read: digits of any script and any count; a minus sign before the digits or before the currency (`-$5`, `$-5`,
U+2212 and its like; dashes too, where they stand neither between two numbers nor before a blank); thousands separated
by commas (1,234, 12,34,567), by narrow or no-break spaces, by apostrophes, by LaTeX's `{,}` and `\,`; by points or by
blanks where it is certain (1.234,5, 1.234.567, 1 234,5); a decimal comma where it is certain (after such thousands, or
in an amount or percentage); `1e5`, `1.5×10^5`, `10^5`; fractions of whole numbers (`1/2`, `1 1/2`, `½`, `\frac{1}{2}`).

A currency and a percent sign are units, of which a number knows nothing: 50% is 50, and not 0.5. `($5)` that is all of
a line is minus five, as bookkeepers write it.

Nothing is computed that could round, overflow or grow: a number is its digits and the place of its point.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from cappy_select.core.time_limit import check_time
from cappy_select.text.spelling import composed

_BETWEEN_LOOKS = 1000  # numbers, at whether there is time left
_PLAIN_ZEROS = 100  # more are written as an exponent, so that 1e999999999 is no text of a gigabyte
_CURRENCY = r"$¢£¤¥\u058f\u060b\u09f2\u09f3\u0e3f\u17db\u20a0-\u20c0\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
_DASHES = "\u2010-\u2015"
_HARD = "\u00a0"  # stands for every space that breaks no number, after `_ascii`
_RAISED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")

_UNIT = rf"[{_CURRENCY}%]|\\[$%]|(?:USD|EUR|GBP|JPY|CNY|INR|CHF)\b"
_COMMA = r"(?:,|\{,\})(?:\\!)?"
_NARROW = rf"(?:[{_HARD}~'’_]|\{{?\\[,; ]\}}?)"
_POWER = r"10(?:(?:\^|\*\*)\{?(?P<%s>[+-]?\d{1,18})\}?(?![\d.]*\d)|(?P<%s>[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,18}))"
_BODY = rf"""
    (?P<points>\d{{1,3}}(?:(?:\.\d{{3}})+(?=,\d)|(?:\.\d{{3}}){{2,}}(?!\d|[.,]\d)))(?:,(?P<points_rest>\d++))?+(?![.,]\d)
  | (?P<narrow>\d{{1,3}}(?:{_NARROW}\d{{3}})+(?!\d))(?:[.,](?P<narrow_rest>\d++))?
  | (?<!\d\ )(?P<spaced>[1-9]\d{{0,2}}(?:\ \d{{3}})+(?!\d))
    (?:,(?P<spaced_rest>\d++)(?![.,]\d)|(?=[ {_HARD}]?(?:{_UNIT})))
  | (?<!\d\ )(?P<millions>[1-9]\d?(?:\ \d{{3}}){{2,}}(?!\ ?\d|,\d))(?:\.(?P<millions_rest>\d++))?
  | (?<![(\[])(?P<under_one>0),(?P<under_one_rest>\d{{2,}}+)(?![.,]\d)
  | (?P<amount>\d++),(?P<amount_rest>\d{{1,2}})(?=[ {_HARD}]?(?:{_UNIT}))
  | (?(money)(?P<price>\d++),(?P<price_rest>\d{{1,2}})(?![.,]?\d)|(?!))
  | (?P<whole>\d{{1,3}}(?:{_COMMA}\d{{3}})+(?!\d)|\d{{1,2}}(?:{_COMMA}\d{{2}}){{1,60}}{_COMMA}\d{{3}}(?!\d)|\d++)
    (?:\.(?P<whole_rest>\d++))?
"""
_WAYS = ("points", "narrow", "spaced", "millions", "under_one", "amount", "price", "whole")
_NUMBER = re.compile(
    rf"""
    (?P<minus>(?<![\w.)\]}}%{_DASHES}-])(?:-|(?<!\d[ {_HARD}])[{_DASHES}])|\+)?
    (?:(?P<money>[A-Z]{{0,3}}\\?[{_CURRENCY}]|USD|EUR|GBP|JPY|CNY|INR|CHF)[ {_HARD}]?(?P<inner>-)?)?
    (?:
        \\[dt]?frac\ ?(?:\{{(?P<over>-?\d{{1,18}})\}}|(?P<over1>\d))\ ?(?:\{{(?P<under>\d{{1,18}})\}}|(?P<under1>\d))
      | (?<![\w./])(?:(?P<units>\d{{1,9}})[ {_HARD}])?(?P<top>\d{{1,18}})/(?P<bottom>\d{{1,18}})(?![\w/]|\.\d)
      | (?<![\w.]){_POWER % ("power", "raised")}
      | (?: (?<![\d.])(?:{_BODY}) | (?<![\w.])\.(?P<small>\d++) )
        (?: [eE](?P<e>[+-]?\d{{1,18}})(?!\w)
          | [ {_HARD}]?(?:[x×·∙⋅*]|\\times|\\cdot)[ {_HARD}]?{_POWER % ("times", "times_raised")} )?
    )
    (?:[ {_HARD}]?(?P<unit>{_UNIT}))?
    """,
    re.VERBOSE,
)
_BOOKED = re.compile(rf"\W*\(([A-Z]{{0,3}}\\?[{_CURRENCY}][ {_HARD}]?\d[^()\s]*)\)\W*")
_ALONE_WITH_BLANKS = re.compile(r"\s*[+-]?[1-9]\d?(?: \d{3})+(?:\.\d+)?\.?\s*")


@dataclass(frozen=True)
class _Number:
    """A number's value, and what stood around it."""

    value: str
    unit: str
    is_fraction: bool

    @property
    def with_unit(self) -> str:
        if not self.unit or self.unit == "%":
            return self.value + self.unit
        return f"-{self.unit}{self.value[1:]}" if self.value.startswith("-") else self.unit + self.value


def number(text: str) -> str:
    """The last number in a text, in one spelling: `1,000` and `1000.0` are `1000`. Empty when there is none.

    Takes time linear in the text's length. Raises OutOfTime where a time limit holds and is over, else nothing.
    """
    text = plain_signs(text)
    last = None
    for place, last in enumerate(_NUMBER.finditer(text)):  # noqa: B007
        if place % _BETWEEN_LOOKS == 0:
            check_time()
    return "" if last is None else _booked(text, last) or _read(last).value


def is_number(text: str) -> bool:
    """Whether a text is a number and nothing else."""
    return _NUMBER.fullmatch(plain_signs(text).strip()) is not None


def spelled(word: str) -> str | None:
    """A number in one spelling, with its currency or percent sign; None for what is none, or is a fraction.

    Takes what `plain_signs` gives.
    """
    found = _NUMBER.fullmatch(word)
    read = found and _read(found)
    return read.with_unit if read and not read.is_fraction else None


def closed_up(text: str) -> str:
    """A text whose numbers with blanks in them (`1 234,5`, `50 %`, `-$ 5`) are in one spelling, as one word.

    Takes what `plain_signs` gives.
    """
    parts, done = [], 0
    for place, found in enumerate(_NUMBER.finditer(text)):
        if place % _BETWEEN_LOOKS == 0:
            check_time()
        around = text[max(0, found.start() - 1) : found.start()] + text[found.end() : found.end() + 1]
        if any(map(str.isspace, found[0])) and not any(sign.isalnum() or sign == "/" for sign in around):
            read = _read(found)
            parts += [text[done : found.start()], found[0] if read.is_fraction else read.with_unit]
            done = found.end()
    return "".join([*parts, text[done:]])


def plain_signs(text: str) -> str:
    """A text, composed, with ASCII's digits, minus sign and separators for those of other scripts and fonts."""
    text = composed(text)
    text = text if text.isascii() else text.translate(_signs())
    return text.replace(" ", "") if _ALONE_WITH_BLANKS.fullmatch(text) else text


def _booked(text: str, last: re.Match[str]) -> str:
    """`($5)` that is all of a line, as minus five."""
    start, end = text.rfind("\n", 0, last.start()) + 1, text.find("\n", last.end())
    found = _BOOKED.fullmatch(text, start, len(text) if end < 0 else end)
    amount = found and _NUMBER.fullmatch(found[1])
    value = _read(amount).value if amount else "0"
    return "" if value == "0" else f"-{value}"


def _read(found: re.Match[str]) -> _Number:
    negative = (found["minus"] or "+") != "+" or found["inner"] is not None
    units = {(found[name] or "").lstrip("\\").upper() for name in ("money", "unit")} - {""}
    # Of LaTeX's $5$ neither sign is money.
    unit = "" if (found["money"], found["unit"]) == ("$", "$") else min(units - {"%"} or units, default="")
    over, under = found["over"] or found["over1"] or found["top"], found["under"] or found["under1"] or found["bottom"]
    if over is not None and under is not None:
        return _Number(_fraction(int(found["units"] or 0), int(over), int(under), negative), unit, True)
    power = found["power"] or found["raised"]
    exponent = power or found["e"] or found["times"] or found["times_raised"] or "0"
    whole, rest = ("1" if power else ""), found["small"] or ""
    for name in _WAYS:
        if found[name]:
            whole, rest = re.sub(r"\D", "", found[name]), found[f"{name}_rest"] or ""
    return _Number(_spelling(whole, rest, int(exponent.translate(_RAISED)), negative), unit, False)


def _spelling(whole: str, rest: str, exponent: int, negative: bool) -> str:
    """By value alone, so that equal numbers are spelled alike."""
    digits = (whole + rest).lstrip("0")
    bare = digits.rstrip("0")
    if not bare:
        return "0"
    zeros = exponent - len(rest) + len(digits) - len(bare)  # the number is `bare` times ten to the power of this
    if zeros < -len(bare) - _PLAIN_ZEROS or zeros > _PLAIN_ZEROS:
        found = f"{bare}e{zeros}"
    elif zeros >= 0:
        found = bare + "0" * zeros
    else:
        padded = bare.rjust(1 - zeros, "0")
        found = f"{padded[:zeros]}.{padded[zeros:]}"
    return "-" + found if negative else found


def _fraction(units: int, over: int, under: int, negative: bool) -> str:
    """A fraction as a decimal number where it is one, else in lowest terms."""
    if under == 0:
        return f"{'-' if negative else ''}{over}/0"
    value = units + Fraction(over, under)
    value = -value if negative else value
    twos, fives, left = 0, 0, value.denominator
    while left % 2 == 0:
        twos, left = twos + 1, left // 2
    while left % 5 == 0:
        fives, left = fives + 1, left // 5
    if left != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator)
    return _spelling(digits, "", -places, value < 0)


@cache
def _signs() -> dict[int, str]:
    found = {code: str(unicodedata.decimal(chr(code))) for code in range(0x80, sys.maxunicode) if chr(code).isdecimal()}
    found |= dict.fromkeys(map(ord, "\u2212\ufe63\uff0d\u02d7\u2796"), "-")
    found |= dict.fromkeys(map(ord, "\u2007\u2008\u2009\u200a\u202f\u205f"), _HARD)
    found |= {ord(sign): plain for sign, plain in zip("，．٫٬＇％٪／⁄∕＋＾", ",..,'%%///+^", strict=True)}
    halves = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"
    return found | {ord(sign): f" {unicodedata.normalize('NFKC', sign).replace('⁄', '/')}" for sign in halves}
