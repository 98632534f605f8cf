"""Cappy in LiteLLM: `litellm.completion(model="cappy/<preset>")` asks several models, answers with the best."""

from litellm_cappy.provider import CappyLLM, register

__all__ = ["CappyLLM", "register"]
