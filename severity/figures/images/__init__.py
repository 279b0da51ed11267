"""Figures that need images or trained networks, one file each, with a function `draw` from a study to its picture."""
