"""Checkpoints of a run: the last states and the best weights, written beside the training, read into any layout."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from cappy_select.errors import DataError
from cappy_select.train.steps import State, Weights

_KEPT = 2


class Checkpoints:
    """Where a run's states are kept.

    Args:
        folder: Made when it is not there. With several processes all of them must see it.
    """

    def __init__(self, folder: Path) -> None:
        with self._errors(folder):
            self._last, self._best = (
                ocp.CheckpointManager(
                    (folder / name).resolve(),
                    options=ocp.CheckpointManagerOptions(max_to_keep=kept, cleanup_tmp_directories=True),
                )
                for name, kept in (("last", _KEPT), ("best", 1))
            )

    def save(self, step: int, state: State) -> None:
        """Keep a state; returns before it is written. Raises DataError, also for one before that could not be."""
        with self._errors(self._last.directory):
            if step not in self._last.all_steps():
                self._last.save(step, args=ocp.args.StandardSave(_sealed(state._asdict())), force=True)

    def save_best(self, step: int, weights: Weights) -> None:
        """Keep the best weights so far instead of those before; returns when they are written. Raises DataError."""
        with self._errors(self._best.directory):
            if step not in self._best.all_steps():
                self._best.save(step, args=ocp.args.StandardSave(_sealed(weights)), force=True)
                self._best.wait_until_finished()

    def newest(self, like: State) -> State | None:
        """The newest state that can be read, in the layout of `like`; None when there is none.

        One that can't be read is put aside with a warning, and so are best weights of later steps. Raises DataError
        when there are some and none can be read.
        """
        self.wait()
        found, step, reason = None, -1, ""
        unread: list[int] = []
        for step in sorted(self._last.all_steps(), reverse=True):
            try:
                found = State(**self._restored(self._last, step, like._asdict()))
                break
            except Exception as error:  # what a damaged file raises is not documented
                reason = " ".join(str(error).split())[:200]
                unread.append(step)
        if found is None and unread:
            raise DataError(
                f"no checkpoint in {self._last.directory} can be read ({reason}): train anew, in another folder"
            )
        for each in unread:
            warnings.warn(
                f"the checkpoint of update {each} can't be read, so the one before is taken: {reason}", stacklevel=2
            )
            _put_aside(self._last, each)
        for later in self._best.all_steps():
            if found is None or later > step:
                _put_aside(self._best, later)
        return found

    def best(self, step: int, like: Weights) -> Weights | None:
        """The best weights, which are those of this step; None, with a warning, when they can't be read."""
        self.wait()
        try:
            return dict(self._restored(self._best, step, like))
        except Exception as error:  # what a damaged file raises is not documented
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the best weights, of update {step}, can't be read, so the last ones are taken: {reason}", stacklevel=2
            )
            return None

    def wait(self) -> None:
        """Until all is written. Raises DataError."""
        for manager in (self._last, self._best):
            with self._errors(manager.directory):
                manager.wait_until_finished()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give up the threads; what is being written is finished first."""
        for manager in (self._last, self._best):
            try:
                with self._errors(manager.directory):
                    manager.close()
            except DataError:
                if kind is None:
                    raise

    @staticmethod
    def _restored(manager: Any, step: int, like: Any) -> Any:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _sealed(like))
        found = manager.restore(step, args=ocp.args.StandardRestore(abstract))
        if int(_sum_of_bits(found["kept"])) != int(found["seal"]):
            raise ValueError("its numbers are not those that were written")
        return found["kept"]

    @staticmethod
    @contextmanager
    def _errors(folder: Any) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore's are ValueError
            reason = " ".join(str(error).split()).rpartition(": ")[2]  # tensorstore tells where first, then why
            raise DataError(
                f"{folder} can't be written: {reason}; the checkpoints before are kept: --resume goes on"
            ) from error


@jax.jit
def _sum_of_bits(tree: Any) -> jax.Array:
    bits = (jax.lax.bitcast_convert_type(leaf, jnp.uint32) for leaf in jax.tree.leaves(tree))
    return sum((jnp.sum(each, dtype=jnp.uint32) for each in bits), jnp.uint32(0))


def _sealed(tree: Any) -> dict[str, Any]:
    """With a checksum, the same in any layout: Orbax itself does not notice changed bytes."""
    return {"kept": tree, "seal": _sum_of_bits(tree)}


def _put_aside(manager: Any, step: int) -> None:
    if jax.process_index() == 0:
        folder = manager.directory / str(step)
        folder.rename(folder.with_name(f"{step}.unread.{time.time_ns()}"))
    manager.reload()
