from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cappy_select.train.encoder import Encoder, EncoderConfig
from cappy_select.train.flops import peak_flops, training_flops


def test_operations_are_those_that_the_compiler_counts():
    shape = EncoderConfig(
        model_type="bert", vocab_size=50, hidden_size=256, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=1024, max_position_embeddings=128, type_vocab_size=2, pad_token_id=0,
    )  # fmt: skip
    model = Encoder(shape, jax.random.key(0))
    ids, lengths = jnp.zeros((8, 128), jnp.int32), jnp.full(8, 128, jnp.int32)
    counted = jax.jit(lambda ids, lengths: model(ids, ids, lengths)).lower(ids, lengths).cost_analysis()["flops"]
    assert training_flops(shape, np.full(8, 128)) / 3 == pytest.approx(counted, rel=0.05)  # it counts sums and tanh too


def test_the_peak_is_known_by_the_devices_name_or_told():
    assert peak_flops("NVIDIA H100 80GB HBM3", None) == 989e12
    assert peak_flops("NVIDIA H100 PCIe", None) == 756e12
    assert peak_flops("TPU v5 lite", None) == 197e12
    assert peak_flops("cpu", None) is None
    assert peak_flops("cpu", 0.5) == 0.5e12
