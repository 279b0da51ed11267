"""Which rule, loss or backbone is milder, and how sure that is."""
