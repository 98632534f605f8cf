"""The scorer: (instruction, response) pairs to float32 scores, on this machine, without torch."""

from cappy_select.scorer.scorer import Ranked, ScoredPairs, Scorer

__all__ = ["Ranked", "ScoredPairs", "Scorer"]
