"""Judges: each reads an explanation and names the emotion that it speaks of."""
