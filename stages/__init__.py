"""The verbs of the pipeline, one file a DVC stage, run as ``python -m stages.NAME``. Nothing imports from here."""

from severity.core import commands

commands.begin_stage()
