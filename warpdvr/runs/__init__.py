"""Scene files, and the folder that a fit writes."""
