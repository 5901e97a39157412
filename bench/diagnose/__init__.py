"""`why`: the first place where two runtimes, or two preprocessings, differ."""
