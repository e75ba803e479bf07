"""What models compute and move, counted on the meta device: no weights, no arithmetic.

    python -m backend.shapes -o profiles/shapes.toml

`predictors.shapes` reads the table that this writes.
"""
