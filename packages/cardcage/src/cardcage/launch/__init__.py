"""Starting a plugin's process inside its walls, and ending it.

`Runner` is the port; each kind of runtime is an adapter.
"""
