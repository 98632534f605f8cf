"""One code path from one CPU to a pod: a mesh of devices, and one rule for where the weights lie.

Rows of a batch are spread over all devices. A weight is spread over the `fsdp` axis along the largest of its axes
that divides evenly, the layers' own axis excepted, and is whole on each device of the `data` axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cappy_select.core.errors import InputError
from cappy_select.train.weights import LAYERED

_SMALL = 4096  # elements: what is smaller is whole everywhere


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
