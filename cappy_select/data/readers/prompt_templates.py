"""PromptSource's templates, as their YAML files have them.

A template is Jinja text with `|||` between the prompt and what is to be answered. Bach et al. 2022,
"PromptSource"; https://github.com/bigscience-workshop/promptsource.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cappy_select.core.errors import InputError, validation_message
from cappy_select.core.yaml_files import PlainLoader, read_yaml

FILE_NAME = "templates.yaml"
SEPARATOR = "|||"


class Metadata(BaseModel):
    """What PromptSource knows of a template. `original_task` is false when input and output are turned around."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    original_task: bool | None = None
    choices_in_prompt: bool | None = None


class Template(BaseModel):
    """One template of a data set. `answer_choices` is Jinja too, with `|||` between the choices."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    name: str = Field(min_length=1)
    jinja: str
    answer_choices: str | None = None
    metadata: Metadata = Metadata()

    @field_validator("answer_choices", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        # The files of 2021 have a list here.
        return SEPARATOR.join(map(str, value)) if isinstance(value, list) else value

    @field_validator("metadata", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        return value or {}


class Templates(BaseModel):
    """The templates of one data set."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    dataset: str
    subset: str | None = None
    templates: tuple[Template, ...]

    @property
    def task(self) -> str:
        """`dataset/subset`."""
        return f"{self.dataset}/{self.subset}" if self.subset else self.dataset


def load_templates(path: str | Path) -> Templates:
    """The templates of a PromptSource YAML file. Raises InputError."""
    try:
        given = read_yaml(path, _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} can't be read as templates: {_line(error)}") from error
    if not isinstance(given, dict) or not isinstance(given.get("templates"), dict):
        raise InputError(f"{path}: expected PromptSource's `dataset`, `subset` and `templates`, got {given!r:.80}")
    try:
        templates = Templates.model_validate(given | {"templates": tuple(given["templates"].values())})
    except ValidationError as error:
        raise InputError(f"{path}: {validation_message(error)}") from error
    if not templates.templates:
        raise InputError(f"{path} holds no template")
    named, times = Counter(template.name for template in templates.templates).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: {times} templates are called {named!r}; a name must be one template's")
    return templates


def find_templates(path: str | Path, name: str | None = None) -> Templates:
    """The templates of a data set in a file or in a folder such as PromptSource's `templates`.

    Args:
        path: A YAML file, or a folder with `templates.yaml` or with `dataset/subset/templates.yaml` in it.
        name: `dataset` or `dataset/subset`, with or without the hub's namespace; None when there is only one.

    Raises InputError when there is none, or more than one and no name.
    """
    path = Path(path)
    if not path.is_dir():
        return load_templates(path)
    if (path / FILE_NAME).is_file():
        return load_templates(path / FILE_NAME)
    if name is not None:
        for folder in (path / name, path / name.partition("/")[2]):
            if (folder / FILE_NAME).is_file():
                return load_templates(folder / FILE_NAME)
        raise InputError(f"no templates of {name!r} in {path}: no {path / name / FILE_NAME}")
    files = sorted(path.rglob(FILE_NAME))
    if len(files) != 1:
        raise InputError(f"{path} has templates of {len(files)} data sets: name the {FILE_NAME} of one")
    return load_templates(files[0])


class _Loader(PlainLoader):
    """YAML with PromptSource's two tags, as mappings, and no other."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
