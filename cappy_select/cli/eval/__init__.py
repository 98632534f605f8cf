"""`cappy eval`: measurements of a scorer."""

from __future__ import annotations

from cappy_select.cli.eval.ablation import ablation
from cappy_select.cli.eval.bigbench import bigbench
from cappy_select.cli.eval.scaling import scaling
from cappy_select.cli.eval.selection import selection
from cappy_select.cli.eval.zeroshot import zeroshot
from cappy_select.cli.output import new_app

app = new_app(no_args_is_help=True)


@app.callback()
def _eval() -> None:
    """Measure a scorer on recorded answers, on multiple choice, or with a model's answers to BIG-bench."""


for verb in (selection, zeroshot, bigbench, scaling, ablation):
    app.command()(verb)
