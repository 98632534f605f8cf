"""Runs stages over hash partitions of the data, on this machine's processes. It must never know what a stage does."""

from cappy_select.data.engine.local import Figures, Workers
from cappy_select.data.engine.rows import append_rows, read_rows

__all__ = ["Figures", "Workers", "append_rows", "read_rows"]
