"""Whether the service in this container does its work: the image's HEALTHCHECK. Standard library only.

JSM must answer at its port, and say on its management port that it is ready; JQS and the health monitor must
say so at their own. Exit code 0 if so, else 1 and the reason. Other roles have no port to ask.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

from jobmon.config import Config, ConfigError, load_config

TIMEOUT = 10  # seconds; under load the service's own port answers late


def urls(config: Config, role: str) -> list[str]:
    """What must answer 200.

    Parameters:
        config: the ports.
        role: ``jsm``, ``jqs`` or ``monitor``; others have nothing to ask.
    """
    place = "http://127.0.0.1"
    if role == "jsm":
        return [
            f"{place}:{config.jsm_port}/healthz",
            f"{place}:{config.jsm_management_port}/readyz",
        ]
    port = {"jqs": config.jqs_port, "monitor": config.monitor_port}.get(role)
    return [f"{place}:{port}/readyz"] if port else []


def main() -> int:
    """See the module's text."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for url in urls(load_config(), os.environ.get("JOBMON_ROLE", "")):
            with opener.open(url, timeout=TIMEOUT):
                pass
    except urllib.error.HTTPError as error:
        print(f"{error.url}: {error.code} {error.read(300).decode(errors='replace')}")
        return 1
    except (OSError, ConfigError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
