"""Other people's clients, driven against a private daemon. See README.md."""
