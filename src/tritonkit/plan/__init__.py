"""Predict what batching settings would do, and find the best ones."""
