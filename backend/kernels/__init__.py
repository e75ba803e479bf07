"""What runs where PyTorch leaves time on the table: fused kernels, attention over rows of any lengths, recorded graphs.

Each kernel stands beside a plain PyTorch reference that computes the same on any device.
"""
