"""Backbones, how images reach them, and trained networks on disk."""
