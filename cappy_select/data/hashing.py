"""Numbers that stand for things: the same in every process, on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hash64(*parts: str | int) -> int:
    """A number in [0, 2**64) that is the same in every process and on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(str(part).encode(errors="surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "little")


def mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014): every bit depends on all of them. uint64[n] -> uint64[n]."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
