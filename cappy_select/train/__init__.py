"""The offline line's second half: pairs -> a scorer (imports JAX; nothing above does)."""
