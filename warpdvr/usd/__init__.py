"""Write USD files for Omniverse and other tools."""
