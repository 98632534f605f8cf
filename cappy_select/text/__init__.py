"""What a text says: the instruction, the answer in it, how alike two are. It must never ask or score anything."""

from cappy_select.text.extractors import (
    Extract,
    extractor,
)
from cappy_select.text.instruction import (
    as_messages,
    build_instruction,
)
from cappy_select.text.messages import (
    message_text,
    response_text,
)
from cappy_select.text.thinking import (
    behind_thinking,
)
from cappy_select.text.tool_calls import (
    arguments_text,
)

__all__ = [
    "Extract",
    "arguments_text",
    "as_messages",
    "behind_thinking",
    "build_instruction",
    "extractor",
    "message_text",
    "response_text",
]
