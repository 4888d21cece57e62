"""Answers requests for samples over HTTP, many of them in one network call.

`requests` reads what is asked for, `batching` joins what waits, `sampler` draws
batches of a few fixed sizes, `app` answers, `server` runs until a signal.
"""
