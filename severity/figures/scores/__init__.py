"""Figures that need no image, one file each, with a function `draw` from a study to its picture."""
