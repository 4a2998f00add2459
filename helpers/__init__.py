"""The thin library of the course. Imports run downwards only: notebooks; checks and analysis; train and data; the rest.

`train` knows no images, `model` no training.
"""
