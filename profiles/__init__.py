"""Measured data that ships with Tilecast; scenarios name it by its stem.

``<hardware>.parquet`` is a profile, one a kind of hardware; ``<model>.reuse.parquet`` recorded cache signals of a model
and ``<model>.forest.parquet`` the cache forest fitted on them (``tilecast cache record | fit``).
"""
