"""(instruction, response) pairs to float32 scores, on this machine. It must never import torch, nor ask an LLM."""

from cappy_select.scorer.cache import CacheInfo, ScoreCache
from cappy_select.scorer.protocol import OtherScorer, PairScorer, as_scorer
from cappy_select.scorer.scorer import Ranked, ScoredPairs, Scorer

__all__ = ["CacheInfo", "OtherScorer", "PairScorer", "Ranked", "ScoreCache", "ScoredPairs", "Scorer", "as_scorer"]
