"""A scorer on disk and on the hub: found, read, verified, written. It must never run a model or make one."""

from cappy_select.bundle.bundle import (
    EMBEDDED,
    Bundle,
    is_bundle,
    load_bundle,
)
from cappy_select.bundle.hub import (
    cache_folder,
)
from cappy_select.bundle.manifest import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    Manifest,
    Precision,
)
from cappy_select.bundle.resolve import (
    CONVERTERS,
    resolve,
)
from cappy_select.bundle.writing import (
    draft_bundle,
    new_folder,
    save_bundle,
)

__all__ = [
    "CONVERTERS",
    "EMBEDDED",
    "MANIFEST",
    "MODEL",
    "TOKENIZER",
    "Bundle",
    "Manifest",
    "Precision",
    "cache_folder",
    "draft_bundle",
    "is_bundle",
    "load_bundle",
    "new_folder",
    "resolve",
    "save_bundle",
]
