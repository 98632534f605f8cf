"""What JAX is told before it begins, and how the processes of one run wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from cappy_select.bundle.hub import cache_folder
from cappy_select.core.errors import InputError

T = TypeVar("T")


def keep_compiled() -> None:
    """Keep what is compiled for the next run, in a folder that only this user can read: it is code.

    `JAX_COMPILATION_CACHE_DIR` names another one.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError:
            return  # compiled anew each time
        jax.config.update("jax_compilation_cache_dir", str(folder))


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Make one run of several processes; call it before anything else of JAX.

    Args:
        coordinator: `host:port` of process 0. With None for all three a TPU pod, Slurm or Open MPI says it.
        processes: How many there are.
        process: Which of them this one is, from 0.

    Raises InputError when they don't find each other.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the processes of this run don't find each other: {error}; all need the same --coordinator HOST:PORT and "
            "--processes, each its own --process"
        ) from error


def any_process(flag: bool) -> bool:
    """Whether it is set in any process; all of them must ask together."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.array(flag))))


def in_turn(do: Callable[[], T]) -> T:
    """What `do` gives; the first process does it before the others, who find what it made."""
    if jax.process_count() == 1:
        return do()
    from jax.experimental.multihost_utils import process_allgather

    made, failure = [], None
    if jax.process_index() == 0:
        try:
            made.append(do())
        except Exception as error:  # the others must not wait for ever
            failure = error
    failed = bool(np.any(process_allgather(np.array(failure is not None))))
    if failure is not None:
        raise failure
    if failed:
        raise InputError("the first process of this run failed, and says why")
    return made[0] if made else do()
