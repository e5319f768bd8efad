"""Tables and pages from the files of finished runs; imports no torch, so that it starts at once."""
