"""Show a field in a window, with polyscope."""
