"""Which exception handlers no test reaches."""
