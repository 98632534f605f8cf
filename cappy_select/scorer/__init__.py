"""The scorer: (instruction, response) pairs to float32 scores, on this machine, without torch."""

from cappy_select.scorer.cache import CacheInfo, ScoreCache
from cappy_select.scorer.scorer import Ranked, ScoredPairs, Scorer

__all__ = ["CacheInfo", "Ranked", "ScoreCache", "ScoredPairs", "Scorer"]
