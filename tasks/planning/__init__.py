"""Planning: what an edit will compute, and the identity of every result, before anything runs."""
