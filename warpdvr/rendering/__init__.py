"""Images of fields, and their gradients."""
