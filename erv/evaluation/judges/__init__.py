"""Who reads an explanation when we evaluate."""
