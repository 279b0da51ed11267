"""One file a collection: raw files in, one tidy table out. The file's name is its name in params.yaml."""
