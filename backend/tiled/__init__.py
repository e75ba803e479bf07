"""Requests larger than their model: a sketch, refined tile by tile on any number of devices."""
