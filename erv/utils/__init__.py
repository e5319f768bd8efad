"""Helpers that know nothing of emotions."""
