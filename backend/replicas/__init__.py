"""The replicas of a real run: where a model lies and launches are carried out, in a process each."""
