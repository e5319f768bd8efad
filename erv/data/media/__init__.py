"""Decoding clips, recording what their files hold, and caching the frozen towers' outputs."""
