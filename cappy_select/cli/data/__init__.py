"""`cappy data`: make instances of tasks, and look at instances, samples and pairs."""

from __future__ import annotations

from cappy_select.cli.data.judge import judge
from cappy_select.cli.data.read import read, sources
from cappy_select.cli.data.samples import samples
from cappy_select.cli.data.show import show
from cappy_select.cli.output import new_app

app = new_app(no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Make instances of tasks, and look at instances, samples and pairs."""


for verb in (read, sources, show, samples, judge):
    app.command()(verb)
