"""What a run will need, and what it does: the memory plan."""
