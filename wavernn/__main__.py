"""`python -m wavernn` is the command line, which torchrun needs."""

from wavernn.cli import main

main()
