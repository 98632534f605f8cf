"""The choices written out behind the instruction, as FLAN does (Wei et al. 2022, section 2.3)."""

from __future__ import annotations

from cappy_select.data.instances import Instance


def with_options(instance: Instance) -> Instance:
    """The instance with its choices listed at the end of the instruction; as it is when it has none, or lists them."""
    if not instance.choices:
        return instance
    suffix = "\n\nOPTIONS:" + "".join(f"\n- {choice}" for choice in instance.choices)
    if instance.instruction.endswith(suffix):
        return instance
    return instance.model_copy(update={"instruction": instance.instruction + suffix})
