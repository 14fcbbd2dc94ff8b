"""Triangle meshes: extract them from fields, read and write them, trace rays against them."""
