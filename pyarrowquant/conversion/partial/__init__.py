"""What a run has done so far, on the disk, so that another one can continue it."""
