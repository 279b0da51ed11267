"""The data card: what a prepared collection holds, near-duplicates across its splits, its figures."""
