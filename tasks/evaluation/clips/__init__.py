"""The clips that methods are compared on: drawn scenes, real videos, and pairs with true flow."""
