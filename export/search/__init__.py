"""The race of quantisation recipes: each is made, timed and scored by retrieval on validation images."""
