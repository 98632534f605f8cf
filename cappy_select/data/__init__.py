"""The offline line's first half: instances -> samples -> pairs. It must never train.

`readers` and `sources` make instances of tasks, `sample` asks LLMs for answers and keeps them in a `store`,
`labels` says how right an answer is, `build` makes scored pairs of it all.
"""

from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance, read_instances
from cappy_select.data.labels import rouge_l, rouge_l_batch

__all__ = ["Instance", "Problems", "read_instances", "rouge_l", "rouge_l_batch"]
