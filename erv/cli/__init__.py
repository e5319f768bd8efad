"""The command line: start a command, its help, grids of jobs and their launcher, shards."""
