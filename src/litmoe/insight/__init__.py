"""What a configuration will need on a machine, and what it does there."""
