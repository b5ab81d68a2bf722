"""Tasks: one thin Prefect task per stage, and what their plans are made of."""
