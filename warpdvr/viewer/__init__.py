"""A window onto a field, in polyscope."""
