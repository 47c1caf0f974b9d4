"""What is done with a trained model: write text, and measure it."""
