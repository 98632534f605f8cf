"""Multiple choice without an LLM: the scorer picks among the choices of tasks that it was not trained on.

The measure of the paper: accuracy of a template, its mean over the templates of a task, and theirs over the tasks.
"""

from cappy_select.evaluate.zeroshot.measure import Judge, evaluate_zeroshot, graph_parameters
from cappy_select.evaluate.zeroshot.report import (
    Accuracy,
    Difference,
    TaskReport,
    ZeroshotReport,
    accuracy_table,
    differences,
    notes,
    zeroshot_report,
)
from cappy_select.evaluate.zeroshot.tasks import LEFT_OUT, read_files, read_paper_tasks

__all__ = [
    "LEFT_OUT",
    "Accuracy",
    "Difference",
    "Judge",
    "TaskReport",
    "ZeroshotReport",
    "accuracy_table",
    "differences",
    "evaluate_zeroshot",
    "graph_parameters",
    "notes",
    "read_files",
    "read_paper_tasks",
    "zeroshot_report",
]
