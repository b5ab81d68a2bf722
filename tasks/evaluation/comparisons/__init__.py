"""The comparisons, their registry, and the code that they share."""
