"""The report of a run: tables, plots, films, and the files that contain them."""
