"""Synthetic radiographs: what they show, how they are drawn, what their labels say."""
