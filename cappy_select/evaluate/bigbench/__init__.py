"""BIG-bench with a frozen LLM, the paper's second experiment: of 17 answers, is the one that Cappy picks the best?

An LLM answers each instance in five ways (`Plan.preset("paper")`). Each way's first answer is a baseline; Cappy,
self-scoring and the oracle pick among all of them.
"""

from cappy_select.evaluate.bigbench.answers import (
    KINDS,
    Answered,
    generation,
    kind_of,
    recorded_answers,
    stored_answers,
)
from cappy_select.evaluate.bigbench.measure import BigbenchReport, evaluate_bigbench
from cappy_select.evaluate.bigbench.report import bigbench_report, differences_table, ways_table

__all__ = [
    "KINDS",
    "Answered",
    "BigbenchReport",
    "bigbench_report",
    "differences_table",
    "evaluate_bigbench",
    "generation",
    "kind_of",
    "recorded_answers",
    "stored_answers",
    "ways_table",
]
