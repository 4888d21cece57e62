"""The command line: a file for each command, and their runner.

A command's file holds its flags with their help, an example, and a call of the
library; `main` looks it up. Nothing outside this folder imports it.
"""
