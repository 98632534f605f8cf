"""Cappy in LangChain: a chat model that asks several models and answers with the best answer."""

try:
    from langchain_cappy.chat_models import ChatCappy
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain_core":
        raise
    from cappy_select.errors import MissingExtra

    raise MissingExtra("langchain", "langchain_cappy", "langchain_core") from error

__all__ = ["ChatCappy"]
