"""Downloads that fail soon where there is no network."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request

PROBE = "https://huggingface.co"
SECONDS = 20


def fail_soon() -> bool:
    """Bound the silence of any connection; where the model hub is out of reach, do not retry it either.

    Returns:
        Whether the hub answers.
    """
    import huggingface_hub.constants

    socket.setdefaulttimeout(SECONDS)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(PROBE, timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it answers
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that a metric may start
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        return False
    return True
