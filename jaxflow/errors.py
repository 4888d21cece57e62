"""The two errors a user meets: a wrong request and a failed run."""


class UsageError(ValueError):
  """A field, flag or file that the user gave is wrong; exit code 2.

  The message is one line that names the field, its value and the remedy.
  """


class RunError(RuntimeError):
  """A correct request that could not be carried out; exit code 1."""


class NotFiniteError(RunError):
  """Samples, or what is computed of them, are not finite."""
