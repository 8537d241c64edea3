"""`python -m dicomdask` is the command `dicomdask`."""

from dicomdask.cli import main

main(prog_name="dicomdask")
