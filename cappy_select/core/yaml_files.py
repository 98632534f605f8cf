"""Reading YAML: plain values, of bounded size and depth, so that some lines can't become the machine's memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LARGEST_BYTES = 5_000_000
_MOST_VALUES = 1_000_000  # in the file
_MOST_REPEATED = 20_000  # in a file with aliases, each counted as often as it stands for something
_DEEPEST = 50


class PlainLoader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """A SafeLoader for files whose writer nobody knows: no aliases."""

    aliases = False
    _aliased = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            if not self.aliases:
                raise yaml.MarkedYAMLError(
                    problem="aliases (*name) are not taken: write the value out",
                    problem_mark=self.peek_event().start_mark,
                )
            self._aliased = True
        return super().compose_node(parent, index)

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        _check_size(node, _MOST_REPEATED if self._aliased else _MOST_VALUES)
        return node


class AliasLoader(PlainLoader):
    """A SafeLoader for files of the owner: with aliases, whose values together are bounded."""

    aliases = True


def read_yaml(path: str | Path, loader: type[PlainLoader]) -> Any:
    """What a YAML file holds, of bounded size: 5 MB, a million values (20,000 with aliases), 50 levels.

    Args:
        path: The file, in UTF-8.
        loader: `PlainLoader` for a file whose writer nobody knows, `AliasLoader` for one of the owner.

    Returns:
        Plain values: dicts, lists, texts, numbers, dates, None.

    Raises:
        OSError: it can't be read.
        UnicodeDecodeError: it is not UTF-8.
        RecursionError: it is nested too deep for the parser.
        yaml.YAMLError: it is no YAML, or is larger than the bounds.
    """
    with open(path, "rb") as file:
        content = file.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise yaml.YAMLError(f"it is larger than {_LARGEST_BYTES:,} bytes")
    # A subclass of the safe loader: it makes plain values only.
    return yaml.load(content.decode("utf-8-sig"), loader)  # noqa: S506


def _check_size(node: Any, most: int) -> None:
    """Raises a YAMLError for more values, or deeper ones, than a file of ours can need; an alias in itself is deep."""
    waiting, count = [(node, 1)], 0
    while waiting:
        each, depth = waiting.pop()
        count += 1
        if count > most:
            raise yaml.MarkedYAMLError(problem=f"more than {most:,} values", problem_mark=each.start_mark)
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"deeper than {_DEEPEST} levels", problem_mark=each.start_mark)
        if isinstance(each, yaml.MappingNode):
            waiting += [(inner, depth + 1) for pair in each.value for inner in pair]
        elif isinstance(each, yaml.SequenceNode):
            waiting += [(inner, depth + 1) for inner in each.value]
