"""Copies and pickles of our LangChain models: fields are copied, what they are built of is shared or built anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from cappy_select.copies import check_pickles

_Model = TypeVar("_Model", bound=BaseModel)


def deep_copy_of(model: _Model) -> _Model:
    """Its fields, lists and dicts copied; models, runnables and scorers are shared, for they hold connections, locks
    and sessions."""
    fields = model.__dict__.items()
    return model.model_copy(update={name: value.copy() for name, value in fields if isinstance(value, list | dict)})


def state_of(model: BaseModel, state: Mapping[Any, Any]) -> dict[Any, Any]:
    """A pickle's state, less what is built anew from the fields. Raises TypeError for a field that can't be pickled."""
    for name, value in model.__dict__.items():
        check_pickles(type(model).__name__, name, value)
    return {**state, "__pydantic_private__": None}
