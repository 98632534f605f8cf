"""PromptSource's rendering: a row under a template, in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_truncate
from pydantic import BaseModel, ConfigDict

from cappy_select.core.errors import InputError
from cappy_select.data.formats import Record
from cappy_select.data.readers.prompt_templates import SEPARATOR, Template
from cappy_select.data.readers.sandbox import LARGEST, STATE, Budget, Sandbox, TooMuch

TEXT_LENGTH = 2048  # characters of one printed value; PromptSource's TEXT_VAR_LENGTH

_PATIENCE = 3  # rows that a template may spend all of its budget on, which takes seconds each
_GUARDED = "\ufdd0"  # stands for the separator in a row's own text; no character, so in no text


class Rendered(BaseModel):
    """What a template makes of a row."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    prompt: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None


class Renderer:
    """Renders one template as PromptSource does.

    Jinja with `zip`, and the filters `choice` (which here depends on the seed and the row) and
    `most_frequent`. A `|||` in a row's own text separates nothing. Every printed value is cut at
    `cut` characters, at the end of a word; PromptSource cuts the last operand of a printed expression,
    which is the same for plain `{{ field }}`.

    Args:
        template: What to render.
        cut: Characters of a printed value; None: no limit.

    Raises InputError when the template is no Jinja.
    """

    def __init__(self, template: Template, *, cut: int | None = TEXT_LENGTH) -> None:
        self._cut = cut
        self._too_much = 0
        self._plain = Sandbox()
        printing = Sandbox(self._shortened) if cut is not None else self._plain
        try:
            self._jinja = printing.from_string(template.jinja)
            self._choices = (
                None if template.answer_choices is None else self._plain.from_string(template.answer_choices)
            )
            parsed = [self._plain.parse(text) for text in (template.jinja, template.answer_choices or "")]
        except (
            TemplateError,
            RecursionError,
            SyntaxError,
            ValueError,
            MemoryError,
        ) as error:  # what compiling can raise
            raise InputError(f"template {template.name!r} is no Jinja: {_line(error)}") from error
        self._needed = frozenset[str]().union(*map(_needed, parsed)) - {"answer_choices"}

    def render(self, row: Record, seed: str) -> Rendered | None:
        """The prompt, targets and choices; None when the template leaves the row out (one of them is empty).

        Args:
            row: A row.
            seed: What `choice` depends on.

        Raises InputError when it can't be rendered.
        """
        missing = sorted(self._needed - row.keys())
        if missing:
            raise InputError(f"no field {', '.join(map(repr, missing))}; the row has {', '.join(row)}")
        if "answer_choices" in row:
            raise InputError("a row can't have a field 'answer_choices'")
        if self._too_much >= _PATIENCE:
            raise InputError(f"not rendered: the template did too much for {_PATIENCE} other rows")
        try:
            state = Budget(seed, row)
            choices = None
            if self._choices is not None:
                choices = _output(self._choices, {**_guarded(row), STATE: state}).split(SEPARATOR)
                choices = [choice.strip() for choice in choices]
            # A second copy: what the choices' template does to a list must not show.
            text = _output(self._jinja, {**_guarded(row), STATE: state, "answer_choices": choices})
        except Exception as error:  # a template can raise whatever Python does
            self._too_much += isinstance(error, TooMuch)
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


def _output(template: JinjaTemplate, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        length += len(part)
        if length > LARGEST:
            raise SecurityError(f"more than {LARGEST} characters")
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
