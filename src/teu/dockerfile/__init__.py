"""The Dockerfile language, without any building: text to instructions to configuration.

lines         directives, comments, continuations, heredocs
instructions  flags and arguments of each keyword
stages        FROM, and which stage needs which
words         quotes and variables
configure     instructions that change an image's configuration
"""
