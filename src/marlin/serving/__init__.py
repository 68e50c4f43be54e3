"""Serving: profiles of (model, GPU, tensor parallelism), their calibration and queueing."""
