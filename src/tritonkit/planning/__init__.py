"""Plan a model's batching: profile it, simulate all settings, run the best few, confirm one."""
