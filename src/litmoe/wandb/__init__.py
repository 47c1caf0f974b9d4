"""Weights & Biases: data sets and checkpoints as artifacts, runs as runs."""
