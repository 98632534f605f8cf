"""What a text says: the instruction, the answer in it, how alike two are. It must never ask or score anything."""
