"""Request-level event simulation of continuous batching: the judge of every plan."""
