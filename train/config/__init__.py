"""The training config: YAML sections as typed models."""
