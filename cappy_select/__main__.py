"""`python -m cappy_select`: the same as the `cappy` command."""

from cappy_select.cli import main

main()
