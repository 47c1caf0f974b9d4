"""Every form of text that people have, read the same way wherever text is taken: files in, documents out."""
