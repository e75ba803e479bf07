"""The ranks of a replica: processes, one a device, that watch each other and exchange tensors."""
