"""Label trees by name, null trees, and what a mistake costs."""
