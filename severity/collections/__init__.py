"""What a collection's own tables and files say, in one form for all collections."""
