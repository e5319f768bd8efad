"""Decoding clips and keeping the frozen towers' outputs."""
