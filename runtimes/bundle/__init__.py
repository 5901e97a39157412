"""The bundle: manifest, spec, artifacts, golden vectors."""
