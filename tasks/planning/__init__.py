"""Planning: the stages of an edit and the identity of every result, before anything runs."""
