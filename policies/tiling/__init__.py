"""Tiles of a canvas larger than a model is made for: their geometry, their movement, and who computes them."""
