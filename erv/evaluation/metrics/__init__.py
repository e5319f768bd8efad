"""Figures of recognition and of explanation, with intervals; pure numpy."""
