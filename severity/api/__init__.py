"""What `import severity` offers: thin functions over the other folders that check what users give. Nobody imports it."""
