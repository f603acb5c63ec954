"""What every other part stands on: errors, names, limits and the clock. Imports nothing of ours."""
