"""Colour spaces, and the colour that a surface shows under light."""
