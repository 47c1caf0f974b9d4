"""What a configuration does on a machine, before and while it runs."""
