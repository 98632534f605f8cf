"""Cappy in LiteLLM: `litellm.completion(model="cappy/<preset>")` asks several models, answers with the best."""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no network at LiteLLM's import

from litellm_cappy.presets import load_presets
from litellm_cappy.provider import CappyLLM, register

__all__ = ["CappyLLM", "load_presets", "register"]
