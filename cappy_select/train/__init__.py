"""The offline line's second half: pairs -> a scorer, in JAX. It must never ask an LLM.

`recipe` reads what to do, `job` does it: `tokens` and `batches` feed the `loop`, whose `compiled` functions change
an `encoder`'s weights; `checkpoints` keep them, `evaluation` judges them, `run` is the folder they are in.
"""

from importlib.util import find_spec

from cappy_select.core.errors import MissingExtra

for _module in ("jax", "flax", "optax", "orbax", "tensorboardX", "safetensors"):
    if find_spec(_module) is None:
        raise MissingExtra("train", "training", _module)

from cappy_select.train.config import TrainConfig  # noqa: E402 - after what says which extra is missing
from cappy_select.train.job import train  # noqa: E402

__all__ = ["TrainConfig", "train"]
