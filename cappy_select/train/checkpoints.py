"""Checkpoints of a run: the last states and the best weights, written beside the training, read into any layout."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import orbax.checkpoint as ocp

from cappy_select.core.errors import DataError, InputError
from cappy_select.train.compiled import State, Weights

_KEPT = 2
_FORMAT = 2  # of what is kept; 2: with whose it is
_REMEDY = "Take it away, or train anew in another folder"


class Checkpoints:
    """Where a run's states are kept.

    Args:
        folder: Made when it is not there. With several processes all of them must see it.
        owner: What makes the run the one it is, as plain JSON. It is kept beside each state, and its hash in the state,
            under the seal: what another run kept is refused.
    """

    def __init__(self, folder: Path, owner: Mapping[str, Any]) -> None:
        self._owner = {"format": _FORMAT, **owner}
        with self._errors(folder):
            self._last, self._best = (
                ocp.CheckpointManager(
                    (folder / name).resolve(),
                    options=ocp.CheckpointManagerOptions(max_to_keep=kept, cleanup_tmp_directories=True),
                )
                for name, kept in (("last", _KEPT), ("best", 1))
            )

    def save(self, update: int, state: State) -> None:
        """Keep a state; returns before it is written. Raises DataError, also for one before that could not be."""
        with self._errors(self._last.directory):
            if update not in self._last.all_steps():
                self._keep(self._last, update, state._asdict())

    def save_best(self, update: int, weights: Weights) -> None:
        """Keep the best weights so far instead of those before; returns when they are written. Raises DataError."""
        with self._errors(self._best.directory):
            if update not in self._best.all_steps():
                self._keep(self._best, update, weights)
                self._best.wait_until_finished()

    def newest(self, like: State) -> State | None:
        """The newest state that can be read, in the layout of `like`; None when there is none.

        One that can't be read is put aside with a warning, and so are best weights of later updates. Raises DataError
        when there are some and none can be read, InputError when one is another run's.
        """
        self.wait()
        found, update, reason = None, -1, ""
        unread: list[int] = []
        for update in sorted(self._last.all_steps(), reverse=True):
            try:
                found = State(**self._restored(self._last, update, like._asdict()))
                if int(found.step) != update:
                    raise ValueError(f"it is the state after update {int(found.step)}")
                break
            except InputError:
                raise
            except Exception as error:  # what a damaged file raises is not documented
                reason = " ".join(str(error).split())[:200]
                unread.append(update)
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
            if found is None or later > update:
                _put_aside(self._best, later)
        return found

    def best(self, update: int, like: Weights) -> Weights | None:
        """The best weights, which are those of this update; None, with a warning, when they can't be read.

        Raises InputError when they are another run's.
        """
        self.wait()
        try:
            return dict(self._restored(self._best, update, like))
        except InputError:
            raise
        except Exception as error:  # what a damaged file raises is not documented
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the best weights, of update {update}, can't be read, so the last ones are taken: {reason}",
                stacklevel=2,
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

    def _keep(self, manager: Any, update: int, tree: Any) -> None:
        arguments = ocp.args.StandardSave(_sealed(tree, self._owner))
        manager.save(update, args=arguments, force=True, custom_metadata={"owner": self._owner})

    def _restored(self, manager: Any, update: int, like: Any) -> Any:
        folder = manager.directory / str(update)
        self._check_owner(folder, manager.metadata(update).custom_metadata)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _sealed(like, self._owner))
        found = manager.restore(update, args=ocp.args.StandardRestore(abstract))
        if int(_sum_of_bits((found["kept"], found["owner"]))) != int(found["seal"]):
            raise ValueError("its numbers are not those that were written")
        if not np.array_equal(np.asarray(found["owner"]), _hashed(self._owner)):
            raise InputError(f"{folder} is another run's, though it says that it is this one's: {_REMEDY}")
        return found["kept"]

    def _check_owner(self, folder: Any, beside: Mapping[str, Any] | None) -> None:
        """Say whose a state is that is not this run's."""
        owner = (beside or {}).get("owner")
        if not isinstance(owner, dict):
            raise ValueError("it does not say which run it is of: an earlier version of cappy-select kept it")
        if owner == self._owner:
            return
        named = [name for name in {**self._owner, **owner} if owner.get(name) != self._owner.get(name)]
        told = [f"{name} is {owner.get(name)!r:.40} there and {self._owner.get(name)!r:.40} here" for name in named[:3]]
        more = f", and {len(named) - 3} more" if named[3:] else ""
        raise InputError(f"{folder} is another run's: {'; '.join(told)}{more}. {_REMEDY}")

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


def _sealed(tree: Any, owner: Mapping[str, Any]) -> dict[str, Any]:
    """With a hash of whose it is, and a checksum, the same in any layout: Orbax does not notice changed bytes."""
    whose = _beside(_hashed(owner), jax.tree.leaves(tree)[0].sharding)
    return {"kept": tree, "owner": whose, "seal": _sum_of_bits((tree, whose))}


def _beside(numbers: npt.NDArray[np.uint32], layout: jax.sharding.Sharding) -> jax.Array:
    """The same numbers on each device of a layout, those of other processes too."""
    if isinstance(layout, jax.sharding.NamedSharding):
        layout = jax.sharding.NamedSharding(layout.mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_callback(numbers.shape, layout, lambda part: numbers[part])


def _hashed(owner: Mapping[str, Any]) -> npt.NDArray[np.uint32]:
    """uint32[8]."""
    digest = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).digest()
    return np.frombuffer(digest, np.uint32)


def _put_aside(manager: Any, update: int) -> None:
    if jax.process_index() == 0:
        folder = manager.directory / str(update)
        folder.rename(folder.with_name(f"{update}.unread.{time.time_ns()}"))
    manager.reload()
