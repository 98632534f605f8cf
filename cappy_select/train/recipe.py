"""A recipe: a Python file whose `get_config()` returns a `TrainConfig`."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cappy_select.core.errors import CappyError, InputError, validation_message
from cappy_select.train.config import TrainConfig


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> TrainConfig:
    """The configuration of a recipe file, with `KEY=VALUE` settings. It is a program: run your own, or read it first.

    Raises InputError when there is no such file, it fails, or the configuration can't be used; with the key's name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no recipe at {path}: a recipe is a Python file with get_config()")
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if not callable(get_config):
            raise InputError(f"{path} is no recipe: it has no function get_config()")
        config = get_config()
    except CappyError:
        raise
    except ValidationError as error:
        raise InputError(f"{path}: {validation_message(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise InputError(f"{path}: get_config() must return a TrainConfig, it returned {type(config).__name__}")
    return config.changed(settings)
