"""From instances to a scorer of one task: samples, pairs, training, a bundle, a report. It must never touch the LLM.

    instances --split-> train and held-out instances --sample--> answers of the LLMs to all of them
    train    --build-> pairs --train--> weights --export--> bundle
    held-out ----------------------------------------------> report: what each way to pick is worth

Each stage reads only what the ones before it left in the folder (`adapt.folder`), and skips what is done.
"""

from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.report import AdaptReport
from cappy_select.adapt.run import Adaptation, adapt

__all__ = ["AdaptConfig", "AdaptReport", "Adaptation", "adapt"]
