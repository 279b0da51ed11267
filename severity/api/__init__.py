"""What `import severity` offers: functions that check what users give and call the other folders.

No other folder imports it.
"""
