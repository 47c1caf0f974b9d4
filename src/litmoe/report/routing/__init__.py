"""The routing explorer: which expert handles what in a trained model, and whether that is more than chance."""
