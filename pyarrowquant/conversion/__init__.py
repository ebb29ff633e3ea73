"""From a model to the files of a format: the plan, the work, resuming, publishing."""
