"""What a device does with models of real shapes, in minutes: ``python -m benchmarks.gpu_suite``."""
