"""Tables and pages from the files of finished runs; knows no torch, so it starts at once."""
