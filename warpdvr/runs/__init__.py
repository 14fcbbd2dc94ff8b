"""Scene files, and the runs that fits write."""
