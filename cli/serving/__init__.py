"""The verbs that answer with what is near: galleries and the server."""
