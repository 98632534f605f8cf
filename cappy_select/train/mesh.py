"""One code path from one CPU to a pod: a mesh of devices, and one rule for where the weights lie.

Rows of a batch are spread over all devices. A weight is spread over the `fsdp` axis along the largest of its axes
that divides evenly, the layers' own axis excepted, and is whole on each device of the `data` axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cappy_select.errors import InputError
from cappy_select.train.weights import LAYERED

T = TypeVar("T")
_SMALL = 4096  # elements: what is smaller is whole everywhere


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


def mesh_of(fsdp: int) -> Mesh:
    """All devices as (data, fsdp). Raises InputError when `fsdp` does not divide them."""
    found = np.array(jax.devices())
    if found.size % fsdp:
        raise InputError(f"fsdp={fsdp} does not divide the {found.size} devices")
    return Mesh(found.reshape(-1, fsdp), ("data", "fsdp"))


def spec_of(name: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Where a weight lies."""
    axes: list[str | None] = [None] * len(shape)
    free = range(1 if name.rpartition("_")[0] in LAYERED else 0, len(shape))
    able = [axis for axis in free if shape[axis] % fsdp == 0]
    if fsdp > 1 and able and int(np.prod(shape)) >= _SMALL:
        axes[max(able, key=lambda axis: (shape[axis], -axis))] = "fsdp"
    return PartitionSpec(*axes)


def weights_sharding(mesh: Mesh, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NamedSharding]:
    """The rule for all weights."""
    fsdp = mesh.shape["fsdp"]
    return {name: NamedSharding(mesh, spec_of(name, shape, fsdp)) for name, shape in shapes.items()}


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def whole_sharding(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(value: npt.NDArray[Any], where: NamedSharding) -> jax.Array:
    """An array that every process has whole, on the devices: each takes its part."""
    return jax.make_array_from_callback(value.shape, where, value.__getitem__)


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
    from jax.experimental.multihost_utils import sync_global_devices

    if jax.process_index() == 0:
        made = do()
        sync_global_devices("done by the first")
        return made
    sync_global_devices("done by the first")
    return do()
