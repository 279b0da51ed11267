"""From image files to one array of equally large squares."""
