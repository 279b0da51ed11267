"""What the figures of scores and of images share."""
