"""Measure how long a model's runs take on this machine, and keep it as a service curve."""
