"""`python -m comporta` is the command `comporta`."""

from comporta.cli import main

main(prog_name="comporta")
