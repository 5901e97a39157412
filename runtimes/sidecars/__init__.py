"""Environments of other Pythons, for packages that this one cannot have: found, made, and named in remedies."""
