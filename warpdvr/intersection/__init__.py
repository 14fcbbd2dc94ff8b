"""Where rays meet a field: solvers, and the grid that tells them where to look."""
