"""The walls around a plugin's process: planned as data, applied by one applier, and reported as they really stand."""
