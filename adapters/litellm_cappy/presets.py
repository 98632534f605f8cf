"""The panels of a YAML file, as LiteLLM's own process asks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cappy_select import Selector
from cappy_select.select import load_panels

_INNER_CALL: dict[str, Any] = {
    # A panel's answer carries the usage and cost of all its calls: callbacks and spend logs must not see them twice.
    "no-log": True,
    # With a cache of LiteLLM's, all samples of a model would be the same answer.
    "cache": {"no-cache": True, "no-store": True},
}


def load_presets(path: str | Path) -> dict[str, Selector]:
    """The selectors of a YAML file, by name. Their calls pass LiteLLM's cache and logs by.

    Args:
        path: The file (`cappy_select.select.load_panels`).

    Returns:
        The selectors, by the names of their presets.

    Raises:
        InputError: there is a fault in the file; names it and the place.
    """
    return load_panels(path, litellm_params=_INNER_CALL)
