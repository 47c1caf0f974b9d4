"""Training: configuration in, checkpoint out."""
