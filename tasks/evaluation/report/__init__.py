"""Tables, plots, films and pages of results."""
