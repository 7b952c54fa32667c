"""The commands, one file a group: what each accepts and prints; the work is done in nas.jobs."""
