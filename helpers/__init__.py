"""The thin library of the course. Imports run downwards only:

notebooks -> checks, analysis -> train -> data, model -> augment, download, sample -> utils
"""
