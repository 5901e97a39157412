"""`python -m edgerecall`."""

from .cli import main

main()
