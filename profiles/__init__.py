"""Measured data that ships with Tilecast; scenarios name it by its stem.

``<hardware>.parquet`` is a profile, one a kind of hardware: of a CPU by ``tilecast profile``, of a GPU by
``python -m benchmarks.gpu_suite.profiles`` from a run of ``benchmarks.gpu_suite``. ``<model>.reuse.parquet`` are
recorded cache signals of a model, ``<model>.forest.parquet`` the cache forest fitted on them (``tilecast cache record |
fit``) and ``<model>.tiles.parquet`` recorded signals of its tiles. ``hardware.toml`` is what vendors state,
``shapes.toml`` what models compute: from these times are ESTIMATED where nothing was measured.
"""
