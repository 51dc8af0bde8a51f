"""The hello-world image's program, which every teu carries. Built by the Makefile beside it."""
