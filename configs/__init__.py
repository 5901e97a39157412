"""Configs that run as they are; `-c demo.yaml` finds them here where there is no such file."""
