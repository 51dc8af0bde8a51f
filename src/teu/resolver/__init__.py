"""The names of containers: one small process that answers DNS inside all sandboxes.

Standard library only, and of teu only the shim's loop and wire, for it starts with `python -I -S`
and lives on when the daemon does not. See docs/adr/0011.
"""
