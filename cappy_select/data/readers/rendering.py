"""PromptSource's rendering: an example under a template, in a sandbox."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import do_truncate
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel, ConfigDict

from cappy_select.data.readers.prompt_templates import SEPARATOR, Template
from cappy_select.data.records import Record
from cappy_select.errors import InputError

TEXT_LENGTH = 2048  # characters of one printed value; PromptSource's TEXT_VAR_LENGTH

_GUARDED = "\ufdd0"  # stands for the separator in an example's own text; no character, so in no text
_STATE = "_rendering"
_LARGEST = 1_000_000  # characters of an output, items of a product or of all ranges of a rendering


class Rendered(BaseModel):
    """What a template makes of an example."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None


class Renderer:
    """Renders one template as PromptSource does.

    Jinja with `zip`, and the filters `choice` (which here depends on the seed and the example) and
    `most_frequent`. A `|||` in an example's own text separates nothing. Every printed value is cut at
    `cut` characters, at the end of a word; PromptSource cuts the last operand of a printed expression,
    which is the same for plain `{{ field }}`.

    Args:
        template: What to render.
        cut: Characters of a printed value; None: no limit.

    Raises InputError when the template is no Jinja.
    """

    def __init__(self, template: Template, *, cut: int | None = TEXT_LENGTH) -> None:
        self._cut = cut
        self._plain = _Sandbox()
        printing = _Sandbox(finalize=self._shortened) if cut is not None else self._plain
        try:
            self._jinja = printing.from_string(template.jinja)
            self._choices = (
                None if template.answer_choices is None else self._plain.from_string(template.answer_choices)
            )
            parsed = [self._plain.parse(text) for text in (template.jinja, template.answer_choices or "")]
        except (TemplateError, RecursionError) as error:
            raise InputError(f"template {template.name!r} is no Jinja: {_line(error)}") from error
        self._needed = frozenset[str]().union(*map(_needed, parsed)) - {"answer_choices"}

    def render(self, example: Record, seed: str) -> Rendered | None:
        """The prompt, targets and choices; None when the template leaves the example out (one of them is empty).

        Args:
            example: A row.
            seed: What `choice` depends on.

        Raises InputError when it can't be rendered.
        """
        missing = sorted(self._needed - example.keys())
        if missing:
            raise InputError(f"no field {', '.join(map(repr, missing))}; the example has {', '.join(example)}")
        if "answer_choices" in example:
            raise InputError("an example can't have a field 'answer_choices'")
        state = _Rendering(seed)
        try:
            choices = None
            if self._choices is not None:
                choices = _output(self._choices, {**_guarded(example), _STATE: state}).split(SEPARATOR)
                choices = [choice.strip() for choice in choices]
            # A second copy: what the choices' template does to a list must not show.
            text = _output(self._jinja, {**_guarded(example), _STATE: state, "answer_choices": choices})
        except Exception as error:  # a template can raise whatever Python does
            raise InputError(f"{type(error).__name__}: {_line(error)}") from error
        prompt, *targets = [part.replace(_GUARDED, SEPARATOR).strip() for part in text.split(SEPARATOR)]
        if not prompt or not targets or not all(targets):
            return None
        offered = None if choices is None else dict.fromkeys(self._offered(choice) for choice in choices if choice)
        return Rendered(prompt=prompt, targets=tuple(targets), choices=None if offered is None else tuple(offered))

    def _offered(self, choice: str) -> str:
        """A choice as a target shows it."""
        return (choice if self._cut is None else self._shortened(choice)).replace(_GUARDED, SEPARATOR).strip()

    def _shortened(self, value: Any) -> str:
        return do_truncate(self._plain, str(value), self._cut or TEXT_LENGTH)


@dataclass
class _Rendering:
    """What one rendering has used up."""

    seed: str
    items_left: int = _LARGEST
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311


_WIDE = re.compile(r"\d{7}")


class _Sandbox(SandboxedEnvironment):
    """Jinja that reaches nothing outside.

    Ranges, products, powers, widths and the output are bounded, so that a slip does not take the machine's memory. It
    is no bound on malice: a text that is joined to itself forty times still is as long as that.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals.update(zip=zip, range=_range)
        del self.globals["lipsum"]
        self.filters.update(choice=_choice, random=_choice, most_frequent=_most_frequent)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) <= _LARGEST and abs(right) <= 64):
            raise SecurityError("too large a power")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise SecurityError("too large a width")
        if operator == "*" and numbers and max(abs(left), abs(right)) > _LARGEST**4:
            raise SecurityError("too large a number")
        if operator == "*" and not numbers:
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > _LARGEST:
                raise SecurityError("too large a product")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, *arguments: Any, **named: Any) -> Any:
        """A method of a text may take a width, a number or within a format."""
        text = getattr(getattr(called, "__wrapped__", called), "__self__", None)
        if isinstance(text, str):
            large = any(isinstance(each, int) and each > _LARGEST for each in arguments)
            if large or _WIDE.search(text):
                raise SecurityError("too large a width")
        return super().call(context, called, *arguments, **named)


@pass_context
def _range(context: Context, *bounds: int) -> range:
    asked = range(*bounds)
    state: _Rendering = context[_STATE]
    state.items_left -= len(asked)
    if state.items_left < 0:
        raise SecurityError(f"more than {_LARGEST} items in the ranges of a template")
    return asked


@pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:
    state: _Rendering = context[_STATE]
    return state.random.choice(items)


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """Those that occur most often, in order; PromptSource's filter."""
    if not items:
        return None
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


def _output(template: JinjaTemplate, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        length += len(part)
        if length > _LARGEST:
            raise SecurityError(f"more than {_LARGEST} characters")
        parts.append(part)
    return "".join(parts)


def _needed(parsed: nodes.Template) -> set[str]:
    """The fields a template can't do without."""
    own = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    doubted = {
        asked.node.name
        for asked in _doubts(parsed)
        if isinstance(asked.node, nodes.Name) and asked.name in {"defined", "undefined", "default", "d"}
    }
    return meta.find_undeclared_variables(parsed) - own - doubted


def _doubts(parsed: nodes.Template) -> Iterator[nodes.Test | nodes.Filter]:
    yield from parsed.find_all(nodes.Test)
    yield from parsed.find_all(nodes.Filter)


def _guarded(value: Any) -> Any:
    """A copy whose texts hold no separator; a copy, because a template can change lists."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, _GUARDED)
    if isinstance(value, dict):
        return {key: _guarded(item) for key, item in value.items()}
    return [_guarded(item) for item in value] if isinstance(value, list) else value


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
