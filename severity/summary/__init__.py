"""Over the seeds of a configuration: medians, the table of the study, the headline."""
