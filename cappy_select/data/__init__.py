"""The offline line's first half: instances -> samples -> pairs.

`readers` and `sources` make instances of tasks, `sample` asks LLMs for answers and keeps them in a `store`,
`labels` says how right an answer is, `build` makes scored pairs of it all.
"""
