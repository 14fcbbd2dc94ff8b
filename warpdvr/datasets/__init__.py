"""Photographs, masks, depth and cameras in; everything comes out in the scene frame."""
