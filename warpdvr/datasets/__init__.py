"""Read photographs, masks, depth and cameras into the scene frame."""
