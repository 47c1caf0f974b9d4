"""Commands: options in, one function call, an exit code out."""
