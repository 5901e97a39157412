"""The verbs that answer with what is near: the gallery."""
