"""``python -m jobmon.worker``."""

import os

from jobmon.worker.main import main

# Nothing is left to be done: all files are written without buffers, the reporter's thread has ended.
os._exit(main())
