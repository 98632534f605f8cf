"""Cappy in LangChain: a chat model, a runnable, an agent's middleware, a cross-encoder, a document compressor."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cappy_select import (
    MissingExtra,
)

if TYPE_CHECKING:
    from langchain_cappy.chat_models import ChatCappy
    from langchain_cappy.middleware import CappyMiddleware
    from langchain_cappy.provider import LangChainProvider
    from langchain_cappy.rerank import CappyCompressor, CappyCrossEncoder
    from langchain_cappy.selector import CappySelector

# Loaded when asked for: the middleware needs `langchain` and langgraph, the others `langchain-core` alone.
_HOMES = {
    "CappyCompressor": "rerank",
    "CappyCrossEncoder": "rerank",
    "CappyMiddleware": "middleware",
    "CappySelector": "selector",
    "ChatCappy": "chat_models",
    "LangChainProvider": "provider",
}

__all__ = [
    "CappyCompressor",
    "CappyCrossEncoder",
    "CappyMiddleware",
    "CappySelector",
    "ChatCappy",
    "LangChainProvider",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"langchain", "langchain_core", "langgraph"}:
            raise
        raise MissingExtra("langchain", f"langchain_cappy.{name}", missing) from error
