"""What a run did and what each expert does, as a page to look at and as JSON. Only `routing` imports torch."""
