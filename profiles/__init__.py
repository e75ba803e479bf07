"""Measured profiles that ship with Tilecast, one Parquet file a kind of hardware. Scenarios name them by their stem."""
