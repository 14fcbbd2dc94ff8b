"""USD for Omniverse."""
