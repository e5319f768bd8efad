"""Lightning callbacks of all stages."""
