"""Many objects of one kind: pictures of their meshes, for a network that learns the whole category."""
