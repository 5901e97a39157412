"""Predictors over the edge runtimes, the bundle they read, and the preprocessing sealed inside it."""
