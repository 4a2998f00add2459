"""Answers to the exercises, for test_checks.py: RIGHT in other ways than the lessons, WRONG in ways no table holds.

One module a lesson, each with RIGHT and WRONG: name of the check -> how it is written, or what is wrong -> answer. Some
have WORDS, too: name of the check -> what is wrong -> a part of what must be said.
"""
