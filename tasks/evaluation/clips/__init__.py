"""The clips that methods are compared on."""
