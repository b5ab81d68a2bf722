"""The comparisons, and what they share."""
