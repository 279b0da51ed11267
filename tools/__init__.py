from severity.core import commands

commands.begin()
