"""Images from Dockerfiles.

lines -> instructions -> stages       the language: text with positions to instructions
words                                 quotes and variables
plan                                  what each instruction means: configuration, steps
solver, copying, running, cache       steps become layers, or are found in the cache
service                               one build from request to image
"""
