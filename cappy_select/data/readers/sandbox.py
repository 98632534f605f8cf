"""Jinja that reaches nothing outside, and whose work is bounded: templates are other people's.

One idea: each rendering has a budget, and whatever a template does spends of it before it is done: a turn of a loop, a
call, and each character and item that an operation reads or makes. What a template would do beyond it is a
SecurityError. So time and memory are bounded alike, and by the template and the row alone, not by the machine's speed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import _PassArg

LARGEST = 1_000_000  # characters of an output, items of a product or of all ranges of a rendering
STATE = "_rendering"  # the name of a rendering's Budget among its values

_BUDGET = 4_000_000  # characters and items of a rendering: two seconds or so at most
_PER_INPUT = 20  # more, for each character of the row
_STEP = 10  # what a call or a turn costs, in characters
_MOST_INDENT = 100
_WEIGH, _COUNT, _SPEND = "weigh!", "count!", "spend!"  # names that no template can write

_CHEAP = frozenset({"length", "count", "default", "d", "first", "last", "random", "choice"})
_COMPARING = frozenset(
    [
        "in",
        "eq",
        "equalto",
        "==",
        "ne",
        "!=",
        "lt",
        "lessthan",
        "<",
        "le",
        "<=",
        "gt",
        "greaterthan",
        ">",
        "ge",
        ">=",
        "upper",
        "lower",
        "filter",
        "test",
    ]
)
_SLOW = {"wordwrap": 10, "urlencode": 5, "escape": 6, "e": 6, "forceescape": 6, "xmlattr": 6, "sort": 4, "pprint": 20}
_WIDTHS = frozenset({"center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice"})
_ENCODINGS = frozenset({"utf8", "ascii", "latin1", "iso88591", "utf16", "utf32", "utf8sig"})


class TooMuch(SecurityError):
    """A rendering has spent its budget."""


class Budget:
    """What one rendering may still do, and what its draws depend on.

    Args:
        seed: Of the filter `choice`.
        row: The row, whose size the budget grows with.
    """

    def __init__(self, seed: str, row: Any = None) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.items_left = LARGEST
        self._left = 100 * LARGEST
        self.weigh(row)
        self._left = _BUDGET + _PER_INPUT * (100 * LARGEST - self._left)

    def spend(self, units: int) -> None:
        """Raises SecurityError when that is more than is left."""
        self._left -= units
        if self._left < 0:
            raise TooMuch("the template does too much: too large a text, too many turns or too wide a filter")

    def weigh(self, value: Any) -> int:
        """Spend as much as a value has characters and items, at any depth; returns the depth."""
        if isinstance(value, str | bytes):
            self.spend(1 + len(value))
            return 1
        deepest, waiting = 1, [(value, 1)]
        while waiting:
            each, depth = waiting.pop()
            deepest = max(deepest, depth)
            self.spend(1 + (len(each) if isinstance(each, Collection) else 0))
            if isinstance(each, dict):
                waiting += [(inner, depth + 1) for pair in each.items() for inner in pair]
            elif isinstance(each, list | tuple | set | frozenset):
                waiting += [(inner, depth + 1) for inner in each]
        return deepest

    def counted(self, items: Iterable[Any], constants: int = 0) -> Iterator[Any]:
        """The items, each of which costs a step."""
        for item in items:
            self.spend(_STEP + constants)
            yield item


class Sandbox(SandboxedEnvironment):
    """See the module. `shortened` is what becomes of each printed value."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, shortened: Callable[[Any], Any] = lambda value: value) -> None:
        @pass_context
        def printed(context: Context, value: Any) -> Any:
            _budget(context).weigh(value)
            return shortened(value)

        super().__init__(finalize=printed, optimized=False)  # nothing is computed before there is a budget
        self.globals.update(zip=zip, range=_range)
        del self.globals["lipsum"]
        del self.filters["urlize"]  # HTML, by patterns whose time is not bounded
        self.filters.update(choice=_choice, random=_choice, most_frequent=_most_frequent)
        filters: dict[str, Any] = dict(self.filters)
        self.filters.update({name: _bounded(name, each, costs=name not in _CHEAP) for name, each in filters.items()})
        tests: dict[str, Any] = dict(self.tests)
        self.tests.update({name: _bounded("", each, costs=name in _COMPARING) for name, each in tests.items()})
        self.filters.update({_WEIGH: _weighed, _COUNT: _counted, _SPEND: _spent})

    def _generate(self, source: nodes.Template, *arguments: Any, **named: Any) -> str:
        _instrument(source)
        return super()._generate(source, *arguments, **named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget(context)
        budget.spend(_STEP)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) <= LARGEST and abs(right) <= 64):
            raise SecurityError("too large a power")
        if numbers and operator != "**" and max(abs(left), abs(right)) > LARGEST**4:
            raise SecurityError("too large a number")
        if not numbers:
            budget.weigh(left)
            budget.weigh(right)
            if operator == "%" and isinstance(left, str | bytes):
                _charge_format(budget, left, right if isinstance(right, tuple) else (right,), percent=True)
            elif operator == "*":
                sized, times = (left, right) if isinstance(left, Collection) else (right, left)
                if isinstance(sized, Collection) and isinstance(times, int) and len(sized) * times > LARGEST:
                    raise SecurityError("too large a product")
                budget.spend(len(sized) * max(0, times) if isinstance(sized, Collection) else 0)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, *arguments: Any, **named: Any) -> Any:
        """A method may take a width, a number or within a format."""
        budget = _budget(context)
        budget.spend(_STEP)
        method = getattr(called, "__wrapped__", called)
        of = getattr(method, "__self__", None)
        if isinstance(called, LoopContext):
            arguments = (budget.counted(arguments[0]), *arguments[1:]) if arguments else ()
        elif isinstance(of, str | bytes | int | list):
            arguments = tuple(_listed(budget, each) for each in arguments)
            _charge(budget, method.__name__, of, arguments, named)
        else:
            budget.weigh((arguments, named))
        return super().call(context, called, *arguments, **named)


def _budget(context: Context) -> Budget:
    found: Budget = context.parent[STATE]  # what a template sets is not in the parent
    return found


def _listed(budget: Budget, value: Any) -> Any:
    return list(budget.counted(value)) if isinstance(value, Iterator) else value


def _bounded(name: str, function: Callable[..., Any], *, costs: bool) -> Callable[..., Any]:
    """A filter or a test that pays first."""
    kind = _PassArg.from_obj(function)

    @pass_context
    def paying(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        budget = _budget(context)
        budget.spend(_STEP)
        if costs:
            if name in {"join", "sum", "tojson", "pprint"}:
                value = _listed(budget, value)
            elif isinstance(value, Iterator):
                value = budget.counted(value)
            _charge(budget, name, value, arguments, named)
        first = {
            _PassArg.context: context,
            _PassArg.eval_context: context.eval_ctx,
            _PassArg.environment: context.environment,
        }
        return function(*([first[kind]] if kind else []), value, *arguments, **named)

    return paying


def _charge(budget: Budget, name: str, value: Any, arguments: Sequence[Any], named: dict[str, Any]) -> None:
    """Pay for what a filter, or a method of a text, reads and makes."""
    depth = budget.weigh(value)
    given = [*arguments, *named.values()]
    for each in given:
        budget.weigh(each)
    size = len(value) if isinstance(value, Collection) else 0
    numbers = sum(abs(each) for each in given if isinstance(each, int))
    texts = [each for each in given if isinstance(each, str | bytes)]
    budget.spend(size * _SLOW.get(name, 0))
    if name in _WIDTHS:
        budget.spend(numbers)
    elif name == "expandtabs":
        budget.spend((1 + _occurrences(value, "\t")) * (numbers or 8))
    elif name == "indent":
        budget.spend((1 + _occurrences(value, "\n")) * (numbers + sum(map(len, texts)) + 4))
    elif name == "replace" and given:
        budget.spend((1 + _occurrences(value, given[0])) * max(map(len, texts), default=1))
    elif name == "join":
        items = max([size, *(len(each) for each in given if isinstance(each, Collection))])
        budget.spend(items * max([1, *map(len, texts), len(value) if isinstance(value, str | bytes) else 0]))
    elif name in {"tojson", "pprint"}:
        if numbers > _MOST_INDENT:
            raise SecurityError("too large a width")
        for _ in range(min(depth, 1000) * (numbers if name == "tojson" else 1)):
            budget.weigh(value)
    elif name in {"strip", "lstrip", "rstrip", "trim", "translate", "wordwrap"}:
        budget.spend(size * _widest(given))
    elif name == "round" and numbers > 300:
        raise SecurityError("too large a number")
    elif name == "sum" and not all(isinstance(each, int | float) for each in (*value, *given)):
        for _ in range(size):  # each sum is a copy
            budget.weigh(value)
    elif name in {"format", "format_map"}:
        _charge_format(budget, value, given, percent=False)
        _charge_format(budget, value, given, percent=True)  # the filter is the operator
    elif name in {"encode", "decode"} and not (
        {re.sub("[-_ ]", "", text.lower()) for text in map(str, texts[:1])} <= _ENCODINGS
    ):
        raise SecurityError("an encoding is utf-8, utf-16, utf-32, ascii or latin-1")


def _occurrences(value: Any, sought: Any) -> int:
    text, sought = str(value), str(sought)
    return text.count(sought) if sought else len(text) + 1


def _widest(values: Sequence[Any]) -> int:
    """Characters of the longest text in the values, or in the mappings among them."""
    inner = [text for each in values if isinstance(each, dict) for text in each.values()]
    return max([1, *(len(each) for each in (*values, *inner) if isinstance(each, str | bytes))])


_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?")


def _charge_format(budget: Budget, text: Any, given: Sequence[Any], *, percent: bool) -> None:
    """Pay for the widths in a format, and for each time that it prints what it is given."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    widths: list[str] = []
    if percent:
        widths = [width for found in _PERCENT.findall(text) for width in found if width]
        times = len(_PERCENT.findall(text))
    else:
        fields = text.replace("{{", "").replace("}}", "").split("{")[1:]
        if any("}" not in field for field in fields):
            raise SecurityError("a format's field may not stand within another")
        widths = [width for field in fields for width in re.findall(r"\d+", field.split("}")[0].partition(":")[2])]
        times = len(fields)
    starred = sum(abs(each) for each in given if isinstance(each, int)) if "*" in widths else 0
    total = sum(int(width) for width in widths if width != "*") + starred
    if total > LARGEST:
        raise SecurityError("too large a width")
    budget.spend(total)
    if times > max(1, len(given)):  # else each is printed once
        for _ in range(times):
            budget.weigh(tuple(given))


def _instrument(template: nodes.Template) -> None:
    """Make the nodes pay that are no calls: loops, comparisons, joins, slices, bodies of macros."""
    for loop in list(template.find_all(nodes.For)):
        loop.iter = _asked(loop.iter, _COUNT, _constants(loop))
    bodies: list[Any] = [*template.find_all(nodes.Macro), *template.find_all(nodes.CallBlock)]
    for body in bodies:
        paid = _asked(nodes.Const("", lineno=body.lineno), _SPEND, _constants(body))
        body.body.insert(0, nodes.Output([paid], lineno=body.lineno))
    weighed = partial(_asked, name=_WEIGH)
    for joined in list(template.find_all(nodes.Concat)):
        joined.nodes = [weighed(node) for node in joined.nodes]
    for compared in list(template.find_all(nodes.Compare)):
        compared.expr = weighed(compared.expr)
        for operand in compared.ops:
            operand.expr = weighed(operand.expr)
    for taken in list(template.find_all(nodes.Getitem)):
        if isinstance(taken.arg, nodes.Slice) and taken.ctx == "load":
            taken.node = weighed(taken.node)
    if template.environment is not None:
        template.set_environment(template.environment)


def _constants(node: nodes.Node) -> int:
    """Characters that a node prints each time, beside values."""
    return sum(len(text.data) for text in node.find_all(nodes.TemplateData))


def _asked(node: Any, name: str, number: int = 0) -> nodes.Filter:
    arguments = [nodes.Const(number, lineno=node.lineno)]
    return nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)


@pass_context
def _weighed(context: Context, value: Any, _: int) -> Any:
    _budget(context).weigh(value)
    return value


@pass_context
def _counted(context: Context, value: Any, constants: int) -> Iterator[Any]:
    return _budget(context).counted(value, constants)


@pass_context
def _spent(context: Context, value: Any, constants: int) -> Any:
    _budget(context).spend(_STEP + constants)
    return value


@pass_context
def _range(context: Context, *bounds: int) -> range:
    asked = range(*bounds)
    budget = _budget(context)
    budget.items_left -= len(asked)
    if budget.items_left < 0:
        raise SecurityError(f"more than {LARGEST} items in the ranges of a template")
    return asked


@pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:
    return _budget(context).random.choice(items)


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """Those that occur most often, in order; PromptSource's filter."""
    if not items:
        return None
    counts = Counter(items)
    most = max(counts.values())
    return [item for item, count in counts.items() if count == most]
