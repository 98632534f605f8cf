"""`python -m cappy_select.cli`: the same as the `cappy` command."""

from cappy_select.cli import main

main()
