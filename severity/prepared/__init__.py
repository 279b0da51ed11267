"""Reading what `decode` and `prepare` wrote: images, table, summary."""
