"""Copies and pickles of our LangChain models: fields are copied, what they are built of is shared or built anew."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel

from cappy_select.core import (
    check_pickles,
)


class SharedByCopies(BaseModel):
    """To be inherited from before LangChain's class, by one whose `model_post_init` builds what it needs of its fields.

    A deep copy copies fields that are lists and dicts; models, runnables and scorers are shared, for they hold
    connections, locks and sessions. A pickle has the fields alone; TypeError names one that can't be pickled.
    """

    def __deepcopy__(self, memo: Any = None) -> Self:
        fields = self.__dict__.items()
        return self.model_copy(update={name: value.copy() for name, value in fields if isinstance(value, list | dict)})

    def __getstate__(self) -> dict[Any, Any]:
        for name, value in self.__dict__.items():
            check_pickles(type(self).__name__, name, value)
        return {**super().__getstate__(), "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.model_post_init(None)
