"""One module a figure; each has `draw`, from data frames to a matplotlib figure."""
