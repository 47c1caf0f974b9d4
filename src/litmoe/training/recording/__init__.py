"""Where the figures and texts of a run go."""
