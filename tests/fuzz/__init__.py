"""A fuzzer that is guided by coverage, for what this project parses itself."""
