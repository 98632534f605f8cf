"""The paper's questions, asked of recorded answers: is the pick better than others? It must never train."""
