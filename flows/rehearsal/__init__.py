"""The rehearsal of bulk edits: a data set on real parts of which some are killed, and what must be true at the end."""
