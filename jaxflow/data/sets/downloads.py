"""Whether a download could work, answered in seconds."""

import queue
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable

# Seconds for all hosts together; looking up a name has no limit of its own.
_LIMIT = 4.0


def unreachable(addresses: Iterable[str]) -> str | None:
  """Return a host that cannot be reached, or None.

  Opens and closes a connection to each host, or to the proxy of the
  environment, at once.

  Args:
    addresses: URLs of files to download.

  Example:
    >>> unreachable(["http://localhost:1/file"])
    'localhost'
  """
  hosts = {_host(address) for address in addresses}
  answers: queue.Queue[tuple[tuple[str, int], bool]] = queue.Queue()

  def connect(host):
    try:
      socket.create_connection(host, timeout=_LIMIT).close()
      answers.put((host, True))
    except OSError:
      answers.put((host, False))

  for host in hosts:
    # Daemons: one that hangs in a look-up must not keep the process alive.
    threading.Thread(target=connect, args=(host,), daemon=True).start()
  missing = set(hosts)
  end = time.monotonic() + _LIMIT
  try:
    while missing:
      host, reached = answers.get(timeout=max(end - time.monotonic(), 0))
      if not reached:
        return host[0]
      missing.remove(host)
  except queue.Empty:
    return min(missing)[0]
  return None


def _host(address: str) -> tuple[str, int]:
  parts = urllib.parse.urlsplit(address)
  proxy = urllib.request.getproxies().get(parts.scheme)
  if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
  port = parts.port or (80 if parts.scheme == "http" else 443)
  return parts.hostname or "", port
